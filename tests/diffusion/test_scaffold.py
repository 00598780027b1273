"""Canvases that are partly given, with a denoiser small enough to reason about."""

import pytest
import torch

from llava.diffusion.config import SamplingConfig
from llava.diffusion.sampler import denoise
from llava.diffusion.scaffold import CanvasRow, Scaffold, best_canvases, mean_log_probability

VOCABULARY, MASK, END, PAD = 12, 11, 10, 10
ROWS = [
    CanvasRow([1, None, None, 2], [0, 1, 1, 0], 0),
    CanvasRow([1, None, None, None, 2], [0, 1, 1, 1, 0], 0),
    CanvasRow([None, None, None], [2, 1, 1], 1),
]
"""Three canvases of two prompts; rule 1 forbids the end token, rule 2 all but token 5."""


class Uniform:
    """The same logits everywhere."""

    def __init__(self, logits):
        self.row = logits

    def logits(self, canvas, rows, block):
        return self.row.expand(int(rows.sum()), -1)

    def select(self, rows):
        return self


@pytest.fixture
def scaffold():
    forbidden = torch.zeros(3, VOCABULARY, dtype=torch.bool)
    forbidden[1, END] = True
    forbidden[2] = True
    forbidden[2, 5] = False
    return Scaffold.build(ROWS, forbidden, MASK, PAD)


def fill(scaffold, logits, **settings):
    config = SamplingConfig(gen_length=5, **settings)
    return denoise(
        Uniform(logits),
        3,
        config,
        mask_token_id=MASK,
        pad_token_id=PAD,
        end_token_ids=[END],
        scaffold=scaffold,
    )


@pytest.fixture
def eager_to_end():
    """Logits that want the end token, then 7, then 5."""
    logits = torch.zeros(VOCABULARY)
    logits[END], logits[7], logits[5] = 9.0, 6.0, 3.0
    return logits


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("remasking", ["low_confidence", "margin", "entropy", "random"])
def test_given_tokens_stay_and_blanks_keep_to_their_rules(
    scaffold, eager_to_end, temperature, remasking
):
    decoded = fill(scaffold, eager_to_end, temperature=temperature, remasking=remasking)
    assert torch.equal(decoded.sequences[scaffold.given], scaffold.tokens[scaffold.given])
    assert (decoded.sequences[scaffold.blank] != END).all()
    assert decoded.sequences[2, 0] == 5
    assert (decoded.decided_at[scaffold.given] == 0).all()
    assert (decoded.confidence[scaffold.given] == 1).all()
    after = ~scaffold.given & ~scaffold.blank
    assert (decoded.decided_at[after] == -1).all()


def test_a_forbidden_token_keeps_its_share_of_the_softmax(scaffold, eager_to_end):
    decoded = fill(scaffold, eager_to_end)
    share = eager_to_end.softmax(-1)
    torch.testing.assert_close(decoded.confidence[0, 1:3], share[[7, 7]])
    torch.testing.assert_close(decoded.confidence[2, 0], share[5])


@pytest.mark.parametrize(("steps", "passes"), [(5, [2, 3, 3]), (2, [2, 2, 2]), (1, [1, 1, 1])])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "shift"])
def test_steps_are_shared_by_the_blanks_of_each_canvas(
    scaffold, eager_to_end, steps, passes, schedule
):
    decoded = fill(scaffold, eager_to_end, steps=steps, schedule=schedule)
    assert decoded.nfe.tolist() == passes


def test_the_score_is_the_mean_log_probability_of_what_was_filled_in(scaffold, eager_to_end):
    decoded = fill(scaffold, eager_to_end)
    log = eager_to_end.log_softmax(-1)
    expected = torch.stack([log[7], log[7], (log[5] + 2 * log[7]) / 3])
    torch.testing.assert_close(mean_log_probability(decoded, scaffold.given), expected)


def test_the_best_canvas_of_each_prompt_is_kept_the_first_of_equals(scaffold, eager_to_end):
    decoded = fill(scaffold, eager_to_end)
    assert best_canvases(decoded, scaffold).tolist() == [0, 2]
    decoded.confidence[0, 1] *= 0.9
    assert best_canvases(decoded, scaffold).tolist() == [1, 2]
