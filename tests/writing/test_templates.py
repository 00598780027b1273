"""Templates: the given text comes back to the byte, blanks hold what they promise."""

import math
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llava.constants import ASSISTANT_PROMPT
from llava.diffusion.sampler import SamplingConfig
from llava.images.loading import load_image
from llava.writing.templates import Blank, Infill, Template, forbidden_tokens
from llava.writing.writer import ReportWriter, Request

SAMPLING = SamplingConfig(gen_length=40, steps=40)


@pytest.fixture(scope="module")
def writer(tiny_checkpoint):
    return ReportWriter.from_pretrained(tiny_checkpoint, device="cpu")


@pytest.fixture
def image(tiny_dataset):
    return tiny_dataset.image_folder / "p10" / "image0.png"


def fill(writer, image, *templates, **changes):
    sampling = SamplingConfig(**{"gen_length": 40, "steps": 40, **changes})
    requests = [Request((image,), ASSISTANT_PROMPT, template=text) for text in templates]
    return writer.write(requests, sampling)


def fixed_texts(template):
    return [part for part in Template.parse(template).parts if isinstance(part, str)]


def test_a_template_is_text_and_blanks_and_a_backslash_makes_text_of_a_blank():
    parsed = Template.parse(r"The heart is [5]. [3-8] No \[5] [sic] [x].")
    blanks = (Blank(5, 5), Blank(3, 8))
    assert parsed.parts == ("The heart is ", blanks[0], ". ", blanks[1], " No [5] [sic] [x].")
    assert Template.parse("[2][3]").parts == (Blank(2, 2), Blank(3, 3))


TEMPLATES = [
    "The heart is [5]. [12] No pneumothorax.",
    "[3] effusion",
    "No [4]",
    "FINDINGS:\n\n  Lungs: [2-4];\tHeart :[2] \nIMPRESSION: [3]",
    "  two spaces  [2]  and  [1]  more  ",
    r"a \[3] é ü 中 [2] <|im_end|> <image> [2] ___",
    "[1] [1] [2][2]",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_the_given_text_comes_back_to_the_byte_with_the_blanks_filled(
    writer, image, template, temperature
):
    report = fill(
        writer, image, template, temperature=temperature, gen_length=80, block_length=80, steps=8
    )[0]
    rest = report.text
    for text in fixed_texts(template):
        assert text in rest
        rest = rest[rest.index(text) + len(text) :]
    assert report.text.startswith(template[: template.index("[")].replace("\\", ""))
    blanks = [part for part in Template.parse(template).parts if isinstance(part, Blank)]
    filled = report.given.count(False)
    assert filled <= sum(blank.longest for blank in blanks)
    if not template.endswith("]"):
        assert report.ended
        assert report.text.endswith(fixed_texts(template)[-1])
        assert filled >= sum(blank.shortest for blank in blanks)
    assert len(report.token_ids) == len(report.confidence) == len(report.given)


TEXT = st.text(st.sampled_from("ab .,\n\té中[]\\-5"), max_size=8)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(TEXT, min_size=2, max_size=4), st.data())
def test_any_template_keeps_its_text_whatever_fills_it(tiny_tokenizer, texts, data):
    parts = [part for text in texts for part in (*((text,) if text else ()), Blank(1, 2))]
    infill = Infill(Template(tuple(parts)), tiny_tokenizer, 100)
    forbidden = forbidden_tokens(tiny_tokenizer, len(tiny_tokenizer))
    row, lengths = infill.rows(0)[-1], infill.lengths[-1]
    allowed = {rule: (~forbidden[rule]).nonzero().flatten().tolist() for rule in set(row.rules)}
    ids = [
        data.draw(st.sampled_from(allowed[rule])) if token is None else token
        for token, rule in zip(row.tokens, row.rules, strict=True)
    ]
    text, _ = infill.text(ids, lengths)
    fixed = [part for part in parts if isinstance(part, str)]
    position = 0
    for part in fixed:
        position = text.index(part, position) + len(part)
    if isinstance(parts[0], str):
        assert text.startswith(parts[0])


def test_of_a_range_the_length_with_the_best_mean_log_probability_wins(writer, image):
    def score(report):
        filled = [
            math.log(c)
            for c, given in zip(report.confidence, report.given, strict=True)
            if not given
        ]
        return sum(filled) / len(filled)

    each = [fill(writer, image, f"The heart is [{n}]. No effusion.")[0] for n in (1, 2, 3, 4)]
    best = max(each, key=score)
    assert max(map(score, each)) > min(map(score, each))
    ranged = fill(writer, image, "The heart is [1-4]. No effusion.")[0]
    assert ranged.token_ids == best.token_ids
    assert ranged.decided_at == best.decided_at
    assert ranged.confidence == pytest.approx(best.confidence, abs=1e-5)


@pytest.mark.parametrize("mode", ["full", "prefix"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 1.0, "cfg_scale": 0.5},
        {"cache": "none", "steps": 5},
        {"cache": "block_prefix"},
        {"cache": "block_dual"},
        {"cache": "interval", "response_interval": 3, "update_ratio": 0.5},
        {"threshold": 0.01, "revoke": 0.9},
        {"threshold": 0.01, "revoke": 0.9, "cfg_scale": 0.5},
    ],
)
def test_templates_and_plain_requests_share_a_batch_without_changing(
    writer, image, monkeypatch, mode, changes
):
    monkeypatch.setattr(writer.model.config, "attention_mode", mode)
    templates = ["The heart is [2-3]. [4]", None, "[6] No effusion."]
    together = fill(writer, image, *templates, **changes)
    for template, report in zip(templates, together, strict=True):
        alone = fill(writer, image, template, **changes)[0]
        assert (alone.text, alone.token_ids) == (report.text, report.token_ids)
        assert (alone.decided_at, alone.nfe, alone.given) == (
            report.decided_at,
            report.nfe,
            report.given,
        )
    assert together[1].given is None


def test_steps_of_a_mixed_batch_are_told_by_request(writer, image):
    steps = []
    requests = [Request((image,), ASSISTANT_PROMPT, template=t) for t in ("[2-3] x", None, "[1]")]
    writer.write(requests, SAMPLING, on_step=steps.append)
    rows = [step.rows.tolist() for step in steps]
    assert [1] in rows
    assert [0, 0, 2] in rows
    assert {row for each in rows for row in each} == {0, 1, 2}


def test_a_template_takes_the_whole_canvas_as_one_block_and_plain_requests_blocks_of_eight(
    writer, image, monkeypatch
):
    used = []
    decode = writer.model.decode_with_images

    def spy(*arguments):
        used.append(arguments[3])
        return decode(*arguments)

    monkeypatch.setattr(writer.model, "decode_with_images", spy)
    fill(writer, image, None, "[3] No effusion.")
    assert [(each.block_length, each.num_blocks) for each in used] == [
        (8, 5),
        (used[1].gen_length, 1),
    ]


def test_a_prompt_is_read_once_for_all_lengths_of_its_blanks(writer, image, monkeypatch):
    seen = []
    decode = writer.model.decode_with_images

    def spy(*arguments):
        seen.append(decode(*arguments))
        return seen[-1]

    monkeypatch.setattr(writer.model, "decode_with_images", spy)
    fill(writer, image, "[3]", "[1-4] x")
    work, canvas = seen[0].counters, seen[0].sequences
    assert len(canvas) == 5
    assert (work.tower_calls, work.images, work.prefill_calls) == (1, 2, 1)
    steps = work.token_forwards - sum_of_prefill(writer, image, 2)
    assert steps == canvas.shape[1] * int(seen[0].nfe.sum())


def sum_of_prefill(writer, image, prompts):
    request = Request((image,), ASSISTANT_PROMPT)
    length = len(writer._encode(request, [load_image(image)], SAMPLING))
    return prompts * (length + writer.model.vision_tower.num_tokens - 1)


@pytest.mark.parametrize(
    ("template", "changes", "message"),
    [
        ("No blank at all.", {}, r"has no blank; write \[n\]"),
        ("[0] lungs", {}, r"blank \[0-0\] holds no token"),
        ("[5-3] lungs", {}, r"blank \[5-3\] holds no token"),
        ("[60]", {}, "takes up to 60 tokens.* do not fit gen_length=40"),
        ("[1-39] lungs", {}, "do not fit gen_length=40"),
        ("[1-9] [1-9]", {}, "81 combinations of lengths, at most 64"),
        ("[3] lungs", {"block_length": 20}, "block_length=20 with a template"),
        ("[3] lungs", {"stop": ("x",)}, r"stop=\('x',\) with a template"),
    ],
)
def test_templates_that_cannot_be_filled_are_refused(writer, image, template, changes, message):
    with pytest.raises(ValueError, match=message):
        fill(writer, image, template, **changes)


def test_text_that_the_tokenizer_does_not_give_back_is_refused(tiny_tokenizer):
    """Qwen's tokenizer composes accents (NFC): text written with combining ones would change."""
    with pytest.raises(ValueError, match="does not come back from the tokenizer"):
        Infill(Template.parse("cafe\u0301 [3]"), tiny_tokenizer, 40)


def test_a_blank_after_a_space_begins_with_one_and_no_blank_takes_a_special_token(tiny_tokenizer):
    forbidden = forbidden_tokens(tiny_tokenizer, len(tiny_tokenizer) + 10)
    assert not forbidden[0].any()
    specials = set(tiny_tokenizer.get_added_vocab().values())
    ends = set(tiny_tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))
    for rule in (1, 2, 3, 4):
        allowed = set((~forbidden[rule]).nonzero().flatten().tolist())
        assert allowed & specials == (ends if rule == 3 else set())
        assert max(allowed) < len(tiny_tokenizer)
    spaced = (~forbidden[2]).nonzero().flatten().tolist()
    assert all(tiny_tokenizer.decode([token]).startswith(" ") for token in spaced)
    assert len(spaced) > 1


def test_the_report_says_which_tokens_were_given(writer, image):
    report = fill(writer, image, "The heart is [3]. Lungs [3] clear.")[0]
    runs = [index for index, (a, b) in enumerate(pairwise(report.given)) if a != b]
    assert len(runs) == 4  # given, blank, given, blank, given
