"""Images and context to reports: batches, image sources, where a report ends, what is refused."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from llava.constants import ASSISTANT_PROMPT
from llava.diffusion.sampler import Decoded, SamplingConfig
from llava.writing.writer import ReportWriter, Request

SAMPLING = SamplingConfig(gen_length=16, steps=8)


@pytest.fixture(scope="module")
def writer(tiny_checkpoint):
    return ReportWriter.from_pretrained(tiny_checkpoint, device="cpu")


@pytest.fixture(params=["full", "prefix"])
def either_mode(writer, request, monkeypatch):
    monkeypatch.setattr(writer.model.config, "attention_mode", request.param)
    return writer


@pytest.fixture
def files(tiny_dataset):
    return [tiny_dataset.image_folder / "p10" / f"image{i}.png" for i in range(3)]


@pytest.fixture
def requests(files):
    """Prompts of different lengths with 1, 0 and 2 images, as files and as PIL images."""
    return [
        Request((files[0],), f"{ASSISTANT_PROMPT} Following clinical context: Indication: cough"),
        Request((), "Write a normal report."),
        Request((str(files[1]), Image.open(files[2])), "<image>\n<image>\nCompare the two."),
    ]


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 3}, {"cfg_scale": 0.5}])
def test_a_report_is_the_same_alone_and_in_a_batch(either_mode, requests, settings):
    sampling = SamplingConfig(gen_length=16, steps=8, **settings)
    together = either_mode.write(requests, sampling)
    assert len(together) == 3
    for request, report in zip(requests, together, strict=True):
        alone = either_mode.write([request], sampling)[0]
        assert alone.token_ids == report.token_ids
        assert alone.decided_at == report.decided_at
        assert (alone.text, alone.ended, alone.nfe) == (report.text, report.ended, report.nfe)
        assert alone.confidence == pytest.approx(report.confidence, abs=1e-5)


def test_reports_come_in_the_order_of_the_requests(writer, requests):
    forward = [report.token_ids for report in writer.write(requests, SAMPLING)]
    backward = [report.token_ids for report in writer.write(requests[::-1], SAMPLING)]
    assert forward == backward[::-1]
    assert len({tuple(ids) for ids in forward}) == 3


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_a_pil_image_is_read_as_its_file_is(writer, tmp_path, mode):
    grey = np.random.default_rng(0).integers(0, 256, (40, 30))
    if mode == "I;16":
        image = Image.fromarray((grey * 16).astype(np.uint16))
    else:
        image = Image.fromarray(grey.astype(np.uint8)).convert(mode)
    image.save(tmp_path / "image.png")
    seen = []

    def spy(images):
        seen.append(images)
        return encode(images)

    encode = writer.model.encode_images
    writer.model.encode_images = spy
    try:
        for source in (image, tmp_path / "image.png"):
            writer.write([Request((source,), ASSISTANT_PROMPT)], SAMPLING)
    finally:
        del writer.model.encode_images
    assert torch.equal(seen[0], seen[1])
    assert seen[0].std() > 0.1


def test_every_emitted_token_has_its_confidence_and_step(writer, requests):
    for report in writer.write(requests, SAMPLING):
        assert len(report.token_ids) == len(report.confidence) == len(report.decided_at) > 0
        assert writer.model.config.mask_token_id not in report.token_ids
        assert all(0 < value <= 1 for value in report.confidence)
        assert set(report.decided_at) <= set(range(report.nfe))
        assert 1 <= report.nfe <= 8


def test_the_canvas_of_every_pass_is_kept_on_request(writer, requests):
    mask = writer.model.config.mask_token_id
    steps = []
    for report in writer.write(requests, SAMPLING, on_step=steps.append, keep_history=True):
        assert len(report.history) == report.nfe
        undecided = [canvas.count(mask) for canvas in report.history]
        assert undecided == sorted(undecided, reverse=True)
        assert report.history[-1][: len(report.token_ids)] == report.token_ids
    assert [step.index for step in steps] == list(range(len(steps)))


def test_each_report_is_sampled_by_its_own_seed(writer, requests):
    sampling = SamplingConfig(gen_length=16, steps=8, temperature=1.0)
    seeded = [replace(requests[1], seed=seed) for seed in (0, 1, 2)]
    ids = [report.token_ids for report in writer.write(seeded, sampling)]
    assert len({tuple(row) for row in ids}) == 3
    assert writer.write([seeded[2]], sampling)[0].token_ids == ids[2]


def test_the_drift_of_a_cache_is_none_where_it_is_exact_and_seen_where_it_is_not(
    either_mode, requests
):
    exact = either_mode.model.config.attention_mode == "prefix"
    drift = either_mode.drift(requests, replace(SAMPLING, cache="prefix"))
    assert (drift.max_logit < 1e-4) == exact
    assert drift.tokens_changed == 0 or not exact


def test_no_request_gives_no_report(writer):
    assert writer.write([], SAMPLING) == []


def test_bf16_writes_reports_too(tiny_checkpoint, requests):
    half = ReportWriter.from_pretrained(tiny_checkpoint, device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert all(report.token_ids for report in half.write(requests, SAMPLING))


# ------------------------------------------------------------ where it ends


@pytest.fixture
def deciding(writer, monkeypatch):
    """A writer whose model decides the tokens of a given text, padded as decoding pads."""

    def decide(text, length=40):
        ids = writer.tokenizer(text)["input_ids"]
        ends = writer.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
        emitted = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
        sequence = torch.full((1, max(length, emitted)), writer.tokenizer.pad_token_id)
        decided_at = torch.full_like(sequence, -1)
        sequence[0, :emitted] = torch.tensor(ids[:emitted])
        decided_at[0, :emitted] = torch.arange(emitted)
        nfe = torch.tensor([emitted])
        decoded = Decoded(sequence, torch.ones_like(sequence).float(), decided_at, nfe, nfe * 0)
        monkeypatch.setattr(writer, "model", SimpleNamespace(**vars_of(writer.model, decoded)))
        return writer

    return decide


def vars_of(model, decoded):
    """What `ReportWriter` uses of a model, with decoding answering `decoded`."""
    names = ("config", "device", "dtype", "image_layout")
    answer = {"decode_with_images": lambda *_: decoded}
    return {name: getattr(model, name) for name in names} | answer


def written(writer, **settings):
    sampling = SamplingConfig(gen_length=16, **settings)
    return writer.write([Request((), "Write.")], sampling)[0]


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_a_report_ends_at_the_first_end_token_which_is_counted(deciding, end):
    writer = deciding(f"Clear lungs.{end}")
    report = written(writer)
    assert (report.text, report.ended) == ("Clear lungs.", True)
    assert report.token_ids == writer.tokenizer(f"Clear lungs.{end}")["input_ids"]
    assert len(report.confidence) == len(report.decided_at) == len(report.token_ids)


def test_a_report_that_fills_the_canvas_has_not_ended(deciding):
    report = written(deciding("No effusion. No", length=0))
    assert (report.text, report.ended) == ("No effusion. No", False)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("IMPRESSION", "Clear lungs."),
        (("IMPRESSION", "lungs"), "Clear"),
        (("lungs", "IMPRESSION"), "Clear"),
        ("Clear", ""),
    ],
)
def test_a_report_ends_at_the_earliest_stop_string(deciding, stop, text):
    report = written(deciding("Clear lungs.\n\nIMPRESSION: normal", length=0), stop=stop)
    assert (report.text, report.ended) == (text, True)


def test_a_stop_string_that_does_not_occur_changes_nothing(deciding):
    report = written(deciding("Clear lungs.", length=0), stop="\n\n")
    assert (report.text, report.ended) == ("Clear lungs.", False)


# ----------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("prompt", "images", "message"),
    [
        ("Describe.", 1, "the prompt has 0 <image> for 1 images; write one per image"),
        ("<image>\nDescribe <image>.", 1, "has 2 <image> for 1 images"),
        (ASSISTANT_PROMPT, 0, "has 1 <image> for 0 images"),
    ],
)
def test_images_that_do_not_match_the_prompt_are_refused(writer, files, prompt, images, message):
    with pytest.raises(ValueError, match=message):
        writer.write([Request(tuple(files[:images]), prompt)], SAMPLING)


def test_a_prompt_that_leaves_no_room_for_the_canvas_is_refused(writer, files):
    request = Request((files[0],), f"{ASSISTANT_PROMPT} " + "word " * 1000)
    with pytest.raises(ValueError, match=r"prompt of \d+ tokens \+ gen_length=16 exceeds .* 1024;"):
        writer.write([request], SAMPLING)


def test_a_prompt_may_take_all_the_room_there_is(writer, files):
    """Counted with its image in full: 4 tokens for one placeholder."""
    request = Request((files[0],), ASSISTANT_PROMPT)
    opened = [Image.open(files[0])]
    length = len(writer._encode(request, opened, SAMPLING)) + 3
    room = writer.context_len - length
    assert writer._encode(request, opened, SamplingConfig(gen_length=room))
    with pytest.raises(ValueError, match=f"prompt of {length} tokens"):
        writer._encode(request, opened, SamplingConfig(gen_length=room + 1))


def test_a_missing_image_is_named(writer, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png' does not exist"):
        writer.write([Request((tmp_path / "gone.png",), ASSISTANT_PROMPT)], SAMPLING)
