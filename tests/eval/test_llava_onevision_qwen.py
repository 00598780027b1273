"""The model as lmms-eval knows it, with a writer that needs no checkpoint."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

pytest.importorskip("lmms_eval", reason="evaluation needs the extra `eval`")

from lmms_eval.api.instance import Instance
from PIL import Image

from llava.constants import IMAGE_PLACEHOLDER
from llava.diffusion.sampler import SamplingConfig
from llava.eval import nlg
from llava.eval.documents import Document, read_documents, write_documents
from llava.eval.llava_onevision_qwen import LlavaOnevisionQwen, ModelArguments, sampling_config
from llava.eval.nlg import java
from llava.eval.run.lmms_run import MODEL, TASKS_FOLDER
from llava.images.loading import load_image
from llava.store import read_records
from llava.writing.writer import Report, Request

TASK = "mimic_cxr"


def answer(prompt: str) -> str:
    return f"Report for {prompt}\n\nSecond paragraph."


class FakeTokenizer:
    """Every id is its own text."""

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(f"<{token}>" for token in ids)


@dataclass
class FakeWriter:
    """Answers every request from its prompt, and remembers what it was asked."""

    tokenizer = FakeTokenizer()
    batches: list[tuple[list[Request], SamplingConfig]] = field(default_factory=list)

    def write(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[Report]:
        self.batches.append((list(requests), sampling))
        return [
            Report(answer(request.prompt), True, [5, 7], [0.5, 1.0], [1, 0], 3)
            for request in requests
        ]


def make_model(writer: FakeWriter, predictions: Path | None = None) -> LlavaOnevisionQwen:
    return LlavaOnevisionQwen(writer, torch.device("cpu"), batch_size=2, predictions=predictions)


def instance(doc_id: int, prompt: str, generation: dict, padding: bool = False) -> Instance:
    arguments = (prompt, generation, lambda doc: doc["images"], doc_id, TASK, "test")
    metadata = {"task": TASK, "doc_id": doc_id, "repeats": 1}
    metadata |= {"__padding_only__": True} if padding else {}
    return Instance("generate_until", arguments, 0, metadata=metadata)


@pytest.fixture
def documents(tiny_dataset) -> list[Document]:
    return read_documents(*tiny_dataset)[0]


def run_task(model: LlavaOnevisionQwen | str, folder: Path, monkeypatch, **arguments) -> dict:
    """lmms-eval in this process, in the folder of a run."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    return simple_evaluate(
        model=model, tasks=[TASK], task_manager=manager, process_docs_parallel=1, **arguments
    )


def test_lmms_eval_scores_what_the_writer_wrote_for_every_document(
    documents, tiny_dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(java, "find_java", lambda: None)
    write_documents(documents, tmp_path)
    writer = FakeWriter()
    model = make_model(writer, tmp_path / "predictions")
    results = run_task(model, tmp_path, monkeypatch, gen_kwargs="gen_length=16,steps=4")

    requests = [request for batch, _ in writer.batches for request in batch]
    assert [request.prompt for request in requests] == [d.prompt for d in documents]
    shown = [image.tobytes() for request in requests for image in request.images]
    assert shown == [load_image(image).tobytes() for d in documents for image in d.images]
    assert [len(batch) for batch, _ in writer.batches] == [2, 2, 2, 1]
    assert {sampling for _, sampling in writer.batches} == {SamplingConfig(16, steps=4)}

    lines = (tmp_path / "predictions" / "rank0.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    assert [row["id"] for row in kept] == [d.id for d in documents]
    assert [row["reference"] for row in kept] == [d.reference for d in documents]
    assert all(row["prediction"].endswith("\n\nSecond paragraph.") for row in kept)
    assert kept[1] == {
        "id": "study-1",
        "prediction": kept[1]["prediction"],
        "reference": documents[1].reference,
        "context": documents[1].prompt.removeprefix("<image>\n"),
        "images": ["p10/image1.png"],
        "image_folder": str(tiny_dataset.image_folder),
        "study_id": "study-1",
        "ended": True,
        "nfe": 3,
        "tokens": ["<5>", "<7>"],
        "confidence": [0.5, 1.0],
        "decided_at": [1, 0],
        "drafts": [],
    }

    scores = results["results"][TASK]
    texts = [row["prediction"] for row in kept]
    expected = nlg.score_corpus([d.reference for d in documents], texts).metrics
    assert {name: scores[f"{name},none"] for name in expected} == expected
    assert scores["METEOR,none"] is None
    assert (scores["scored,none"], scores["empty,none"]) == (7, 0)


def test_lmms_eval_finds_the_model_by_name_and_loads_the_checkpoint(
    tiny_checkpoint, documents, tmp_path, monkeypatch
):
    monkeypatch.setattr(java, "find_java", lambda: None)
    write_documents(documents[:2], tmp_path)
    results = run_task(
        MODEL,
        tmp_path,
        monkeypatch,
        model_args=f"pretrained={tiny_checkpoint},dtype=float32,predictions=kept",
        batch_size=2,
        gen_kwargs="gen_length=8,steps=2",
    )
    assert results["results"][TASK]["scored,none"] == 2
    kept = [json.loads(line) for line in (tmp_path / "kept/rank0.jsonl").read_text().splitlines()]
    assert [row["id"] for row in kept] == ["study-0", "study-1"]
    assert all(1 <= row["nfe"] <= 2 for row in kept)


def test_a_padding_request_is_not_written_and_not_kept(tmp_path):
    writer = FakeWriter()
    model = make_model(writer, tmp_path)
    model.task_dict = {TASK: {"test": [{"id": "a", "images": [], "reference": "x"}]}}
    texts = model.generate_until([instance(0, "Q", {}), instance(0, "Q", {}, padding=True)])
    assert texts == ["Report for Q\n\nSecond paragraph.", ""]
    assert len(writer.batches) == 1
    assert len((tmp_path / "rank0.jsonl").read_text().splitlines()) == 1


def test_requests_with_different_settings_never_share_a_batch():
    writer = FakeWriter()
    model = make_model(writer)
    model.task_dict = {TASK: {"test": [{"images": []}] * 3}}
    short, long = {"gen_length": 8}, {"gen_length": 16}
    model.generate_until([instance(i, str(i), g) for i, g in enumerate((short, long, long))])
    assert [(len(b), s.gen_length) for b, s in writer.batches] == [(1, 8), (2, 16)]


def test_a_question_of_another_task_gets_a_mark_for_each_of_its_images():
    writer = FakeWriter()
    model = make_model(writer)
    pictures = [Image.new("RGB", (8, 8)), Image.new("L", (8, 8))]
    model.task_dict = {TASK: {"test": [{"images": pictures}]}}
    model.generate_until([instance(0, "What is it?", {})])
    request = writer.batches[0][0][0]
    assert request.prompt == f"{IMAGE_PLACEHOLDER}\n" * 2 + "What is it?"
    assert request.images == tuple(pictures)


def test_a_document_that_lmms_eval_repeats_is_written_once():
    writer = FakeWriter()
    model = make_model(writer)
    model.task_dict = {TASK: {"test": [{"images": []}] * 2}}
    texts = model.generate_until([instance(number, f"Q{number}", {}) for number in (0, 0, 1)])
    assert texts == [answer("Q0"), answer("Q0"), answer("Q1")]
    assert [len(batch) for batch, _ in writer.batches] == [2]


def test_an_image_that_cannot_be_read_ends_the_evaluation(tmp_path):
    model = make_model(FakeWriter())
    model.task_dict = {TASK: {"test": [{"images": [str(tmp_path / "gone.png")]}]}}
    with pytest.raises(FileNotFoundError, match=r"gone\.png.* does not exist"):
        model.generate_until([instance(0, "Q", {})])


def test_predictions_of_another_run_are_not_added_to(tmp_path):
    make_model(FakeWriter(), tmp_path)
    with pytest.raises(ValueError, match=r"rank0\.jsonl.*another run"):
        make_model(FakeWriter(), tmp_path)


def five_documents() -> dict:
    rows = [{"id": name, "images": [], "reference": "x"} for name in "abcde"]
    return {TASK: {"test": rows}}


def test_a_killed_process_continues_where_it_stopped_batch_by_batch(tmp_path):
    requests = [instance(number, f"Q{number}", {}) for number in range(5)]
    model = make_model(FakeWriter(), tmp_path)
    model.task_dict = five_documents()
    whole = model.generate_until(requests)
    path = tmp_path / "rank0.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    # One batch of two, half of the next, and a line that the kill cut short.
    path.write_text("".join(lines[:3]) + lines[3][:40])

    writer = FakeWriter()
    model = LlavaOnevisionQwen(writer, torch.device("cpu"), 2, tmp_path, resume=True)
    model.task_dict = five_documents()
    assert model.generate_until(requests) == whole
    prompts = [[request.prompt for request in batch] for batch, _ in writer.batches]
    assert prompts == [["Q2", "Q3"], ["Q4"]]
    assert list(read_records(path).values()) == [json.loads(line) for line in lines]


def test_processes_that_would_all_do_everything_are_refused(monkeypatch):
    make_model(FakeWriter())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="ACCELERATE_USE_CPU=true"):
        make_model(FakeWriter())


@pytest.mark.parametrize("until", [[], None, ["\n\n"]])
def test_the_stop_that_lmms_eval_injects_does_not_cut_a_report(until):
    assert sampling_config({"until": until}) == SamplingConfig()


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({"until": ["IMPRESSION"]}, SamplingConfig(stop=("IMPRESSION",))),
        ({"until": "\n\n"}, SamplingConfig(stop=("\n\n",))),
        ({"max_new_tokens": 64}, SamplingConfig(gen_length=64)),
        ({"max_new_tokens": 64, "gen_length": 64}, SamplingConfig(gen_length=64)),
        ({"do_sample": False, "top_p": 1.0, "num_beams": 1, "top_k": None}, SamplingConfig()),
        ({"do_sample": True, "temperature": 0.5}, SamplingConfig(temperature=0.5)),
    ],
)
def test_the_keywords_of_lmms_eval_are_translated(generation, expected):
    assert sampling_config(generation) == expected


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"gen_lenght": 64}, r"unknown generation setting 'gen_lenght'=64.*'gen_length'"),
        ({"num_beams": 4}, "'num_beams'=4"),
        ({"top_p": 0.9}, "'top_p'=0.9"),
        ({"max_new_tokens": 64, "gen_length": 32}, "max_new_tokens=64 contradicts gen_length=32"),
        ({"until": ["A"], "stop": ["B"]}, "until.*contradicts stop"),
        ({"do_sample": True}, "do_sample=True contradicts temperature=0"),
        ({"do_sample": False, "temperature": 1.0}, "do_sample=False contradicts temperature=1"),
        ({"do_sample": "maybe"}, "do_sample='maybe' is not True or False"),
        ({"exact": "maybe"}, "exact='maybe' is not True or False"),
    ],
)
def test_keywords_without_a_meaning_here_are_refused(generation, message):
    with pytest.raises(ValueError, match=message):
        sampling_config(generation)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pretrained": "x", "dtyp": "float32"}, "unknown model argument 'dtyp'.*'dtype'"),
        ({}, "lacks pretrained"),
        ({"pretrained": "x", "batch_size": "auto"}, "batch_size=auto"),
        ({"pretrained": "x", "batch_size": 0}, "batch_size=0"),
    ],
)
def test_model_arguments_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        ModelArguments.from_dict(given)


def test_the_entry_point_in_pyproject_names_the_manifest():
    from llava.eval import llava_onevision_qwen

    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    found = re.search(rf'{MODEL} = "([\w.]+):(\w+)"', pyproject)
    assert found
    assert found.group(1) == llava_onevision_qwen.__name__
    manifest = getattr(llava_onevision_qwen, found.group(2))()
    assert manifest.model_id == MODEL
    assert manifest.simple_class_path == f"{found.group(1)}.LlavaOnevisionQwen"
