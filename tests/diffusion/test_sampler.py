"""The decoding loop with a denoiser small enough to reason about."""

import pytest
import torch

from llava.diffusion.acceptance import Proposal, accept, propose
from llava.diffusion.result import NO_OPTIONS, DecodeOptions
from llava.diffusion.sampler import SamplingConfig, denoise
from llava.diffusion.schedule import transfer_schedule

VOCABULARY, MASK, END, PAD = 20, 19, 18, 17


class TableDenoiser:
    """Fixed logits per row and position: what is decided where can be read off the table."""

    def __init__(self, table):
        self.table = table  # (B, R, V)
        self.batches = []

    def logits(self, canvas, rows, block):
        self.batches.append(len(canvas))
        return self.table[rows]

    def select(self, rows):
        chosen = TableDenoiser(self.table[rows])
        chosen.batches = self.batches
        return chosen


def run(table, options=NO_OPTIONS, **settings):
    config = SamplingConfig(gen_length=table.shape[1], **settings)
    denoiser = TableDenoiser(table)
    result = denoise(
        denoiser,
        len(table),
        config,
        mask_token_id=MASK,
        pad_token_id=PAD,
        end_token_ids=[END],
        options=options,
    )
    return result, denoiser


@pytest.fixture
def table():
    table = torch.randn(3, 8, VOCABULARY, generator=torch.Generator().manual_seed(1))
    table[..., END] = -9.0
    table[..., MASK] = 9.0  # the mask token is the most likely everywhere, and never chosen
    return table


@pytest.mark.parametrize("remasking", ["low_confidence", "random", "margin", "entropy"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "shift"])
def test_a_decoded_token_is_never_the_mask_token(table, remasking, temperature, schedule):
    result, _ = run(table, steps=4, remasking=remasking, temperature=temperature, schedule=schedule)
    assert not (result.sequences == MASK).any()
    assert result.nfe.tolist() == [4, 4, 4]
    assert (result.decided_at >= 0).all()


def test_the_most_confident_are_decided_first_and_blocks_from_left_to_right(table):
    result, _ = run(table, block_length=4, steps=8)
    probability = table.softmax(-1)
    probability[..., MASK] = 0
    best = probability.max(-1).values
    assert (result.decided_at[:, :4] < 4).all()
    assert (result.decided_at[:, 4:] >= 4).all()
    for row in range(3):
        order = result.decided_at[row, :4].argsort()
        assert torch.equal(order, best[row, :4].argsort(descending=True))
    torch.testing.assert_close(result.confidence, best)


def test_the_confidence_is_the_share_of_the_full_softmax(table):
    rows = torch.ones(3, 8, dtype=torch.bool)
    tokens, probability = propose(
        table[rows], table[rows].logsumexp(-1), rows, MASK, 0.0, [0, 0, 0]
    )
    expected = table.softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    torch.testing.assert_close(probability, expected)
    assert probability.max() < 0.5  # the mask token keeps its share


def test_a_row_is_done_when_all_before_its_end_token_is_decided_and_leaves_the_batch(table):
    table[..., MASK] = -9.0
    table[1, 2, END] = 50.0
    table[1, :2, 3] = 40.0
    result, denoiser = run(table, steps=8)
    assert result.sequences[1].tolist() == [3, 3, END] + [PAD] * 5
    assert result.nfe.tolist() == [8, 3, 8]
    assert denoiser.batches == [3, 3, 3, 2, 2, 2, 2, 2]
    assert result.decided_at[1].tolist()[3:] == [-1] * 5


def test_a_skipped_tail_leaves_the_passes_to_the_text(table):
    """An end token decided first: the four positions in front of it take two passes of two."""
    table[..., MASK] = -9.0
    table[:, 4:] = 0.0
    table[:, 4:, 3] = 30.0
    table[:, 4, END] = 60.0
    plain, _ = run(table, steps=4)
    skipping, _ = run(table, steps=4, skip_tail=True)
    assert torch.equal(plain.sequences, skipping.sequences)
    assert plain.nfe.tolist() == [4, 4, 4]
    assert skipping.nfe.tolist() == [3, 3, 3]
    assert skipping.sequences[0].tolist()[4:] == [END, PAD, PAD, PAD]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("remasking", ["low_confidence", "random"])
def test_a_row_decodes_the_same_alone_and_in_a_batch(table, temperature, remasking):
    settings = {"steps": 4, "temperature": temperature, "remasking": remasking, "seed": 5}
    together, _ = run(table, **settings)
    for row in range(3):
        alone, _ = run(table[row : row + 1], **settings)
        assert torch.equal(alone.sequences[0], together.sequences[row])
        assert torch.equal(alone.decided_at[0], together.decided_at[row])


def test_the_seed_changes_what_is_sampled(table):
    one, _ = run(table, temperature=1.0, seed=1)
    same, _ = run(table, temperature=1.0, seed=1)
    other, _ = run(table, temperature=1.0, seed=2)
    assert torch.equal(one.sequences, same.sequences)
    assert not torch.equal(one.sequences, other.sequences)


def test_rows_of_one_prompt_differ_by_their_own_seed_whatever_the_batch(table):
    same = table[:1].repeat(3, 1, 1)
    settings = {"steps": 4, "temperature": 1.0, "remasking": "random"}
    alike, _ = run(same, **settings)
    assert torch.equal(alike.sequences[0], alike.sequences[1])
    together, _ = run(same, DecodeOptions(row_seeds=[7, 8, 9]), **settings)
    assert len({tuple(row) for row in together.sequences.tolist()}) == 3
    alone, _ = run(same[:1], DecodeOptions(row_seeds=[8]), **settings)
    assert torch.equal(alone.sequences[0], together.sequences[1])


def test_a_seed_for_every_row_or_none(table):
    with pytest.raises(ValueError, match="2 row_seeds for 3 rows"):
        run(table, DecodeOptions(row_seeds=[1, 2]))


def test_the_callback_sees_every_pass_and_the_history_holds_its_canvas(table):
    table[1, 2, END] = 50.0
    table[1, :2, 3] = 40.0
    steps = []
    options = DecodeOptions(on_step=steps.append, keep_history=True)
    result, denoiser = run(table, options, steps=8)
    assert [step.index for step in steps] == list(range(len(denoiser.batches)))
    assert result.history.shape == (len(steps), 3, 8)
    assert {len(step.rows) for step in steps} == {2, 3}
    for step, canvas in zip(steps, result.history, strict=True):
        assert torch.equal(canvas[step.rows], step.tokens)
        assert torch.equal(step.tokens == MASK, step.undecided)
        at = result.decided_at[step.rows] == step.index
        assert not (at & ~step.accepted).any()
    emitted = result.decided_at >= 0
    assert torch.equal(result.history[-1][emitted], result.sequences[emitted])
    assert run(table, steps=8)[0].history is None


def test_sampling_follows_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0, -30.0]).repeat(4000, 1)
    rows = torch.ones(4000, 1, dtype=torch.bool)
    tokens, _ = propose(logits, logits.logsumexp(-1), rows, 3, 1.0, list(range(4000)))
    share = torch.bincount(tokens.flatten(), minlength=4) / 4000
    torch.testing.assert_close(share, logits[0].softmax(-1), atol=0.03, rtol=0)


def test_threshold_and_factor_accept_at_least_one_and_finish_early():
    sure = torch.full((1, 8, VOCABULARY), -5.0)
    sure[..., 4] = 5.0
    assert run(sure, threshold=0.9)[0].nfe.tolist() == [1]
    assert run(sure, factor=1.0)[0].nfe.tolist() == [1]
    unsure = torch.zeros(1, 8, VOCABULARY)
    assert run(unsure, threshold=0.9)[0].nfe.tolist() == [8]
    assert run(unsure, factor=0.1)[0].nfe.tolist() == [8]


def test_ties_in_confidence_go_to_the_left():
    score = torch.full((1, 6), 0.5)
    window = torch.ones(1, 6, dtype=torch.bool)
    window[0, 0] = False
    proposal = Proposal(torch.zeros(1, 6).long(), score, score, None)
    kept = accept(proposal, window, torch.tensor([2]), SamplingConfig(gen_length=6))
    assert kept.tolist() == [[False, True, True, False, False, False]]


@pytest.mark.parametrize("name", ["linear", "cosine", "shift"])
@pytest.mark.parametrize("steps", [1, 3, 16, 64])
def test_schedules_decide_every_token_and_at_least_one_while_any_is_left(name, steps):
    mask_index = torch.arange(50) < torch.tensor([[50], [7], [0]])
    table = transfer_schedule(mask_index, steps, name)
    assert table.sum(dim=1).tolist() == [50, 7, 0]
    for row in table:
        decided = row.nonzero().squeeze(1)
        assert decided.tolist() == list(range(len(decided)))


def test_cosine_and_shift_start_slow():
    mask_index = torch.ones(1, 100, dtype=torch.bool)
    for name in ("cosine", "shift"):
        table = transfer_schedule(mask_index, 10, name)[0]
        assert table[0] < 10 < table[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gen_length": 100, "block_length": 32}, "not a multiple of block_length=32"),
        ({"gen_length": 64, "block_length": 16, "steps": 10}, "not a multiple of the 4 blocks"),
        ({"gen_length": 0}, "gen_length=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"threshold": 1.5}, r"not in \(0, 1\]"),
        ({"threshold": 0.9, "factor": 1.0}, "threshold and factor are rules .* give one"),
        ({"remasking": "lowconf"}, "low_confidence, random"),
        ({"schedule": "cos"}, "linear, cosine, shift"),
        ({"cfg_scale": -0.1}, "cfg_scale=-0.1"),
        ({"block_lenght": 8}, "did you mean 'block_length'"),
        ({"zzz": 8}, "known: gen_length"),
        ({"gen_length": 8.0}, "gen_length=8.0 is not a positive whole number"),
        ({"gen_length": "many"}, "gen_length='many' is not a positive whole"),
        ({"gen_length": True}, "gen_length=True is not a positive whole"),
        ({"block_length": 0}, "block_length=0 is not a positive whole number"),
        ({"prompt_interval": 2.5}, "prompt_interval=2.5 is not a positive"),
        ({"exact": "maybe"}, "exact='maybe' is not True or False"),
        ({"skip_tail": 1}, "skip_tail=1 is not True or False"),
        ({"seed": 1.5}, "seed=1.5 is not a whole number"),
        ({"temperature": "hot"}, "temperature='hot' is not a number of at least 0"),
        ({"temperature": float("inf")}, "temperature=inf is not a number of at least 0"),
        ({"threshold": "high"}, r"threshold='high' is not in \(0, 1\]"),
        ({"update_ratio": None}, "update_ratio=None is not in"),
        ({"revoke": float("nan"), "threshold": 0.5}, "revoke=nan is not in"),
        ({"cache": ["none"]}, "is unknown; choose from auto, none"),
        ({"stop": 5}, "stop=.*must be text"),
        ({"gen_length": 128, "steps": 8}, "not a multiple of the 16 blocks .* larger block_length"),
    ],
)
def test_bad_settings_name_the_field_the_value_and_the_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig.from_dict(settings)


@pytest.mark.parametrize(
    ("gen_length", "block_length"), [(128, 8), (64, 8), (100, 5), (12, 6), (6, 6), (1, 1), (13, 1)]
)
def test_without_a_block_length_blocks_are_of_eight_or_the_next_smaller_divisor(
    gen_length, block_length
):
    config = SamplingConfig(gen_length)
    assert (config.block_length, config.steps) == (block_length, gen_length)
