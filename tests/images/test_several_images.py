"""Samples of no, one and several images from a JSON through training, inference and evaluation."""

import json

import numpy as np
import pytest
from PIL import Image

from llava.data.samples.dataset import AnswerFill, Collator, ReportDataset
from llava.data.samples.reading import load_entries
from llava.diffusion.sampler import SamplingConfig
from llava.model.builder import build_from_backbones, load_checkpoint, save_checkpoint
from llava.writing.writer import ReportWriter, Request

SIZES = {"frontal.png": (70, 60), "lateral.png": (40, 90), "small.png": (20, 20)}
SAMPLES = {
    "two": (["frontal.png", "lateral.png"], "Frontal: <image>\nLateral: <image>\nDescribe both."),
    "none": ([], "Write a normal report."),
    "one": (["small.png"], "<image>\nDescribe."),
    "three": (
        ["frontal.png", "lateral.png", "frontal.png"],
        "Frontal: <image>\nLateral: <image>\nPrior frontal: <image>\nCompare.",
    ),
}
LAYOUT = {"image_aspect_ratio": "anyres_max_4", "mm_spatial_pool_stride": 2}
SAMPLING = SamplingConfig(gen_length=8, steps=4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A conversations JSON and its image folder."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        pixels = random.integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    entries = [
        {
            "id": name,
            "image": images,
            "conversations": [
                {"from": "human", "value": prompt},
                {"from": "gpt", "value": f"The {name} are clear."},
            ],
        }
        for name, (images, prompt) in SAMPLES.items()
    ]
    path = folder / "data.json"
    path.write_text(json.dumps(entries))
    return path, folder


@pytest.fixture(scope="module", params=["full", "prefix"])
def checkpoint(request, tmp_path_factory, tiny_backbones):
    folder = tmp_path_factory.mktemp("checkpoint")
    loaded = build_from_backbones(*tiny_backbones, attention_mode=request.param, **LAYOUT)
    save_checkpoint(folder, loaded)
    return folder


@pytest.fixture(scope="module")
def writer(checkpoint):
    return ReportWriter.from_pretrained(checkpoint, device="cpu")


def requests_of(folder):
    return [
        Request(tuple(folder / image for image in images), prompt)
        for images, prompt in SAMPLES.values()
    ]


def test_reports_are_the_same_alone_and_mixed_in_one_batch(writer, dataset):
    requests = requests_of(dataset[1])
    together = writer.write(requests, SAMPLING)
    for request, report in zip(requests, together, strict=True):
        (alone,) = writer.write([request], SAMPLING)
        assert (alone.token_ids, alone.decided_at) == (report.token_ids, report.decided_at)
        assert alone.confidence == pytest.approx(report.confidence, abs=1e-5)


def test_a_prompt_counts_the_tiles_of_its_pictures(writer, dataset):
    folder = dataset[1]
    (request,) = [r for r in requests_of(folder) if len(r.images) == 2]
    opened = [Image.open(image) for image in request.images]
    prompt = writer._encode(request, opened, SAMPLING)
    # Pooled to one token a view: 70 x 60 on 2 x 2 tiles, 40 x 90 on 3 x 1, rows ended by a break.
    length = len(prompt) - 2 + (1 + 1 + 2 * 3) + (1 + 1 + 3 * 2)
    room = writer.context_len - length
    assert writer._encode(request, opened, SamplingConfig(gen_length=room))
    with pytest.raises(ValueError, match=f"prompt of {length} tokens"):
        writer._encode(request, opened, SamplingConfig(gen_length=room + 1))


def test_a_mixed_batch_trains_as_its_samples_do_alone(checkpoint, dataset):
    loaded = load_checkpoint(checkpoint)
    samples = ReportDataset(
        load_entries(*dataset),
        loaded.tokenizer,
        loaded.image_processor,
        layout=loaded.model.image_layout,
        fill=AnswerFill("tight"),
    )
    collate = Collator(loaded.tokenizer.pad_token_id)

    def losses(indices):
        from llava.constants import IGNORE_INDEX
        from llava.diffusion.masking import seeded_noise

        batch = collate([samples[index] for index in indices])
        seeds = batch.pop("sample_index").tolist()
        noise = seeded_noise(batch["labels"] != IGNORE_INDEX, seeds)
        return loaded.model(**batch, noise=noise).sample_loss.tolist()

    together = losses(range(len(SAMPLES)))
    alone = [losses([index])[0] for index in range(len(SAMPLES))]
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_run_stores_the_layout_that_it_was_given(tmp_path, tiny_backbones, dataset):
    from llava.train.train import main

    data_path, folder = dataset
    arguments = [
        *("--model_name_or_path", str(tiny_backbones.language)),
        *("--vision_tower", str(tiny_backbones.vision), "--use_cpu", "true"),
        *("--data_path", str(data_path), "--image_folder", str(folder), "--report_to", "none"),
        *("--output_dir", str(tmp_path / "run"), "--per_device_train_batch_size", "4"),
        *("--mm_tunable_parts", "mm_vision_tower,mm_mlp_adapter,mm_language_model"),
        *("--num_train_epochs", "1", "--answer_canvas", "16", "--attention_mode", "prefix"),
        *("--image_aspect_ratio", "anyres_max_4", "--mm_spatial_pool_stride", "2"),
    ]
    assert main(arguments) == 0
    writer = ReportWriter.from_pretrained(tmp_path / "run", device="cpu")
    assert writer.model.image_layout.tiled
    assert writer.model.config.mm_spatial_pool_stride == 2
    assert all(report.nfe for report in writer.write(requests_of(folder), SAMPLING))


def test_lmms_eval_gives_the_reports_of_the_writer(
    checkpoint, writer, dataset, tmp_path, monkeypatch
):
    pytest.importorskip("lmms_eval", reason="evaluation needs the extra `eval`")
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from llava.eval.documents import read_documents, write_documents
    from llava.eval.nlg import java
    from llava.eval.run.lmms_run import MODEL, TASK, TASKS_FOLDER

    monkeypatch.setattr(java, "find_java", lambda: None)
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_documents(read_documents(*dataset)[0], tmp_path)
    simple_evaluate(
        model=MODEL,
        model_args=f"pretrained={checkpoint},dtype=float32,predictions=kept",
        tasks=[TASK],
        batch_size=3,
        gen_kwargs="gen_length=8,steps=4",
        task_manager=TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False),
        process_docs_parallel=1,
    )
    kept = [json.loads(line) for line in (tmp_path / "kept/rank0.jsonl").read_text().splitlines()]
    expected = [report.text for report in writer.write(requests_of(dataset[1]), SAMPLING)]
    assert [row["prediction"] for row in kept] == expected
    assert [len(row["images"]) for row in kept] == [2, 0, 1, 3]
