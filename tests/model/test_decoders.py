"""The decoders of mode `block` on random weights: exact caches, equal texts, the causal law."""

import pytest
import torch
from tiny_language import END, MASK, PAD, build, ragged_prompts

from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import DecodeOptions
from llava.model.layers.passes import OverPast, run_layers


@pytest.fixture
def model():
    return build("block")


@pytest.fixture
def prompts():
    return ragged_prompts()


def dense_logits(model, prompt, text, groups=()):
    """Logits of every row of one sequence under a dense mask.

    prompt, text: token ids. groups: (first place, ids) after a clean text: masks and tokens of a
    block at places of the text, which see the prompt, the text before `first` and one another.
    """
    start = len(prompt)
    tokens, positions = prompt + text, list(range(start + len(text)))
    sees = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
    sees[:start, :start] = True
    for first, ids in groups:
        size, old = len(ids), len(tokens)
        tokens = tokens + ids
        positions = positions + [start + first + i for i in range(size)]
        grown = torch.zeros(old + size, old + size, dtype=torch.bool)
        grown[:old, :old] = sees
        grown[old:, : start + first] = True
        grown[old:, old:] = True
        sees = grown
    embeds = model.model.embed_tokens(torch.tensor([tokens]))
    rope = model.model.rotary_emb(embeds, torch.tensor([positions]))
    work = OverPast(rope, None, sees[None, None])
    hidden, _ = run_layers(model.model.layers, embeds, [work] * len(model.model.layers))
    return model.lm_head(model.model.norm(hidden))[0]


def without_mask(logits):
    return logits.index_fill(-1, torch.tensor([MASK]), -torch.inf)


def rows_of(prompts):
    ids, mask = prompts
    return [ids[row, : int(mask[row].sum())].tolist() for row in range(len(ids))]


def text_of(decoded, row):
    return decoded.sequences[row][decoded.decided_at[row] >= 0].tolist()


@torch.no_grad()
def test_causal_decoding_is_greedy_recomputation(model, prompts):
    decoded = model.generate(*prompts, decoder="causal", gen_length=12)
    for row, prompt in enumerate(rows_of(prompts)):
        text = []
        while len(text) < 12 and END not in text:
            logits = dense_logits(model, prompt, text)[-1]
            text.append(int(without_mask(logits).argmax()))
            share = logits.softmax(-1)[text[-1]]
            torch.testing.assert_close(
                decoded.confidence[row, len(text) - 1], share, atol=1e-5, rtol=1e-4
            )
        assert text_of(decoded, row) == text
        assert decoded.nfe[row] == len(text)


@pytest.mark.parametrize("block_length", [1, 2, 4, 8])
@pytest.mark.parametrize("drafting", ["joint", "alternate"])
@pytest.mark.parametrize("choices", [1, 2, 5])
@pytest.mark.parametrize("ends", [[END], list(range(0, 60, 7)), None])
def test_greedy_speculation_writes_the_causal_text(
    model, prompts, block_length, ends, choices, drafting
):
    model.config.eos_token_id = ends
    causal = model.generate(*prompts, decoder="causal", gen_length=24)
    settings = {"gen_length": 24, "block_length": block_length, "drafting": drafting}
    settings["draft_choices"] = choices
    fast = model.generate(*prompts, decoder="speculative", **settings)
    assert torch.equal(fast.sequences, causal.sequences)
    torch.testing.assert_close(fast.confidence, causal.confidence, atol=1e-5, rtol=1e-4)
    assert (fast.nfe <= causal.nfe).all()
    for row in range(3):
        alone = model.generate(prompts[0][[row], : int(prompts[1][row].sum())], **settings)
        assert torch.equal(alone.sequences[0], fast.sequences[row])
        assert torch.equal(alone.decided_at[0], fast.decided_at[row])


@torch.no_grad()
def test_drafts_of_a_pass_are_those_of_masks_after_the_accepted_text(model, prompts):
    """The first pass drafts after the prompt; the second reads those drafts and verifies them."""
    from llava.diffusion.result import Counters
    from llava.model.decoding.denoisers import Prompt
    from llava.model.decoding.text_reader import TextReader

    ids, mask = prompts
    prompt = Prompt(model.model.embed_tokens(ids), mask.sum(dim=1))
    reader = TextReader.start(model, prompt, SamplingConfig(gen_length=8), Counters())
    first = reader.read(None, [-1], 4)
    tokens = torch.tensor([[5, 6, 7, 11, 12], [8, 9, 10, 13, 14], [1, 2, 3, 15, 16]])
    paths = [[0], [0, 1], [0, 1, 2], [0, 3], [0, 1, 4]]  # what leads to each token
    second = reader.read(tokens, [-1, 0, 1, 0, 1], 4)
    after_prompt = first.draft_logits(torch.zeros(3).long())
    following = second.next_logits(torch.arange(5).expand(3, -1))
    for row, own in enumerate(rows_of(prompts)):
        expected = dense_logits(model, own, [], [(0, [MASK] * 4)])[len(own) :]
        torch.testing.assert_close(after_prompt[row], expected, atol=1e-4, rtol=1e-4)
        for node, path in enumerate(paths):
            text = [int(tokens[row, index]) for index in path]
            expected = dense_logits(model, own, text)[-1]
            torch.testing.assert_close(following[row, node], expected, atol=1e-4, rtol=1e-4)
            drafts = second.draft_logits(torch.full((3,), node))[row]
            expected = dense_logits(model, own, text, [(len(text), [MASK] * 4)])[-4:]
            torch.testing.assert_close(drafts, expected, atol=1e-4, rtol=1e-4)
    count = torch.tensor([1, 3, 2])  # kept: the last token, with two drafts, with another choice
    second.keep(torch.tensor([[0, 1, 2], [0, 1, 2], [0, 3, 2]]), count)
    third = reader.read(torch.tensor([[20], [21], [22]]), [-1], 0)
    kept = [[5, 20], [8, 9, 10, 21], [1, 15, 22]]
    for row, own in enumerate(rows_of(prompts)):
        expected = dense_logits(model, own, kept[row])[-1]
        found = third.next_logits(torch.zeros(3, 1).long())[row, 0]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("choices", [1, 40])
@pytest.mark.parametrize("drafting", ["joint", "alternate"])
def test_the_record_of_drafts_is_what_each_pass_checked(model, prompts, drafting, choices):
    """Drafts: the best tokens of four masks in the text before the pass, without the first mask,
    whose token was written already. Those accepted are the tokens of the pass but its last, or but
    the last two where the first of them was among the other choices."""
    settings = {"gen_length": 12, "block_length": 4, "drafting": drafting}
    settings["draft_choices"] = choices
    decoded = model.generate(*prompts, decoder="speculative", **settings)
    assert decoded.drafts.shape == (3, 12, 3)
    checked = others = 0
    for row, own in enumerate(rows_of(prompts)):
        text, length = text_of(decoded, row), 0
        for index in range(int(decoded.nfe[row])):
            drafts = decoded.drafts[row, index].tolist()
            at = decoded.decided_at[row, : len(text)]
            written = [token for token, own_pass in zip(text, at, strict=True) if own_pass == index]
            if index == 0 or (drafting == "alternate" and index % 2 == 0):
                assert drafts == [-1] * 3
            else:
                read = text[: length - 1]
                if drafting == "joint":
                    logits = dense_logits(model, own, read, [(len(read), [MASK] * 4)])
                    assert drafts == without_mask(logits[-3:]).argmax(dim=-1).tolist()
                right = [draft == token for draft, token in zip(drafts, written, strict=False)]
                accepted = [*right, False].index(False)
                if choices == 1:
                    assert accepted == len(written) - 1 or length + len(written) == len(text)
                elif accepted < 3 and drafting == "joint" and length + len(written) < len(text):
                    likeliest = without_mask(logits[-3:])[accepted].topk(choices).indices.tolist()
                    other = written[accepted] in likeliest
                    assert len(written) == accepted + 1 + other
                    others += other
                checked += 1
            length += len(written)
        assert length == len(text)
        assert (decoded.drafts[row, int(decoded.nfe[row]) :] == -1).all()
    assert checked > 3
    assert (others > 3) == (choices > 1 and drafting == "joint")
    assert model.generate(*prompts, decoder="causal", gen_length=4).drafts is None


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"threshold": 0.05}, {"threshold": 0.05, "revoke": 0.5}])
def test_blocks_are_decoded_as_if_everything_was_recomputed(model, prompts, settings):
    """Follow the recorded canvases: each pass decides what its rule says of recomputed logits."""
    model.config.eos_token_id = None
    common = {"gen_length": 8, "block_length": 4, "decoder": "blocks", **settings}
    options = DecodeOptions(keep_history=True)
    decoded = model.generate(*prompts, options, **common)
    for row, prompt in enumerate(rows_of(prompts)):
        canvas = [MASK] * 8
        for after in decoded.history[: int(decoded.nfe[row]), row].tolist():
            first = 4 * (canvas.index(MASK) // 4)
            block = canvas[first : first + 4]
            logits = dense_logits(model, prompt, canvas[:first], [(first, block)])
            share = logits[-4:].softmax(-1)
            likeliest = without_mask(logits[-4:]).argmax(-1).tolist()
            for place in range(4):
                if block[place] == MASK and after[first + place] != MASK:
                    assert after[first + place] == likeliest[place]
            masked = [place for place in range(4) if block[place] == MASK]
            sure = {place: float(share[place, likeliest[place]]) for place in masked}
            if "revoke" not in settings:
                least = settings.get("threshold", 2.0)
                wanted = {place for place in masked if sure[place] >= least}
                wanted = wanted or {max(masked, key=lambda place: sure[place])}
                assert {place for place in masked if after[first + place] != MASK} == wanted
            canvas = after
        assert MASK not in canvas
        alone = model.generate(torch.tensor([prompt]), **common)
        assert torch.equal(alone.sequences[0], decoded.sequences[row])
        assert alone.nfe[0] == decoded.nfe[row]


@pytest.mark.parametrize("decoder", ["causal", "speculative", "blocks"])
def test_rows_leave_when_done_and_the_rest_is_fill(model, prompts, decoder):
    model.config.eos_token_id = list(range(0, 60, 5))
    steps = []
    options = DecodeOptions(on_step=steps.append)
    decoded = model.generate(*prompts, options, decoder=decoder, gen_length=24, block_length=4)
    assert len(set(decoded.nfe.tolist())) > 1
    assert len(steps) == int(decoded.nfe.max())
    for row in range(3):
        text = text_of(decoded, row)
        assert all(token % 5 for token in text[:-1])
        assert (decoded.sequences[row, len(text) :] == PAD).all()
        assert sum(row in step.rows.tolist() for step in steps) == int(decoded.nfe[row])


def frequencies(model, prompt, decoder, samples, **settings):
    """How often each pair of first tokens is written over many seeds."""
    ids = torch.tensor([prompt]).expand(samples, -1)
    options = DecodeOptions(row_seeds=range(samples))
    common = {"gen_length": 4, "block_length": 4, "temperature": 0.7}
    decoded = model.generate(ids, None, options, decoder=decoder, **(common | settings))
    return torch.bincount(decoded.sequences[:, 2], minlength=64).double() / samples


@torch.no_grad()
def test_sampled_speculation_follows_the_causal_law(model):
    """The third token's distribution: recomputed over the first two, against 3,000 samples."""
    model.config.eos_token_id = None
    torch.manual_seed(1)
    model.lm_head.weight.mul_(1.5)
    keep = torch.zeros(64, dtype=torch.bool)
    keep[:4] = True  # four tokens, so that the exact law can be written out
    model.lm_head.weight[~keep] = 0
    bias = torch.where(keep, 0.0, -30.0)
    model.lm_head.register_forward_hook(lambda _, __, logits: logits + bias)
    prompt, exact = [3, 1, 4, 1, 5], torch.zeros(64, dtype=torch.double)
    for first in range(4):
        for second in range(4):
            logits = dense_logits(model, prompt, [first, second]).double() + 0
            share = (without_mask(logits[4:]) / 0.7).softmax(-1)
            exact += share[0, first] * share[1, second] * share[2]
    samples = 3000
    ways = [("causal", {})]
    ways += [
        ("speculative", {"drafting": drafting, "draft_choices": choices})
        for drafting in ("joint", "alternate")
        for choices in (1, 2)
    ]
    for decoder, settings in ways:
        seen = frequencies(model, prompt, decoder, samples, **settings)
        spread = (exact * (1 - exact) / samples).sqrt()
        assert ((seen - exact).abs() <= 4.5 * spread + 1e-9).all(), (decoder, settings)
    assert float(exact[:4].min()) > 0.005


def test_a_sampled_text_is_a_function_of_its_seed(model, prompts):
    settings = {"decoder": "speculative", "gen_length": 12, "block_length": 4, "temperature": 1.0}
    ids, mask = prompts
    together = model.generate(ids, mask, DecodeOptions(row_seeds=[5, 6, 7]), **settings)
    for row in range(3):
        alone = model.generate(
            ids[[row], : int(mask[row].sum())], None, DecodeOptions(row_seeds=[5 + row]), **settings
        )
        assert torch.equal(alone.sequences[0], together.sequences[row])
    other = model.generate(ids, mask, DecodeOptions(row_seeds=[8, 9, 10]), **settings)
    assert not torch.equal(other.sequences, together.sequences)


@pytest.mark.parametrize(
    ("mode", "settings", "message"),
    [
        ("prefix", {"decoder": "causal"}, "needs a checkpoint .* attention_mode='block'"),
        ("full", {"decoder": "speculative"}, "needs a checkpoint .* attention_mode='block'"),
        ("block", {"decoder": "causal", "threshold": 0.9}, "threshold=0.9 with decoder='causal'"),
        ("block", {"decoder": "speculative", "cfg_scale": 1.0}, "cfg_scale=1.0 with decoder"),
        ("block", {"decoder": "blocks", "cache": "interval"}, "leave cache out"),
        ("block", {"decoder": "blocks", "step": "graph"}, "step='graph' needs a CUDA device"),
        ("block", {"decoder": "causal", "step": "graph"}, "step='graph' needs a CUDA device"),
        ("block", {"decoder": "best"}, "decoder='best' is unknown"),
        ("block", {"draft_choices": 0}, "draft_choices=0"),
        ("block", {"draft_choices": 1.5}, "draft_choices=1.5"),
        ("block", {"draft_choices": 1000}, "draft_choices=1000 is above 64; try 2"),
    ],
)
def test_what_a_decoder_cannot_do_is_refused(prompts, mode, settings, message):
    with pytest.raises(ValueError, match=message):
        build(mode).generate(*prompts, gen_length=8, block_length=4, **settings)
