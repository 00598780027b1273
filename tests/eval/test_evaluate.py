"""evaluate.sh and its command: refusals before the run, checks after it, and real runs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from PIL import Image

pytest.importorskip("lmms_eval", reason="evaluation needs the extra `eval`")

from llava.diffusion.sampler import SamplingConfig
from llava.eval import evaluate, nlg
from llava.eval.documents import DOCUMENTS_FILE, Document, read_documents
from llava.eval.nlg import java
from llava.eval.predictions import read_predictions
from llava.eval.run import steps as run
from llava.eval.run.folder import open_folder
from llava.eval.run.lmms_run import PREDICTIONS_FOLDER, Launch, error_in
from llava.model.checkpoint import checkpoint_id
from llava.store import locked
from llava.writing.records import Prediction
from llava.writing.writer import Report, ReportWriter, Request

pytestmark = pytest.mark.whole_scripts
ROOT = Path(__file__).resolve().parents[2]
SAMPLING = SamplingConfig(gen_length=32, steps=8, temperature=1.0, seed=2)
"""Sampled: the greedy reports of an untrained model are empty."""


@pytest.fixture
def documents(tiny_dataset) -> list[Document]:
    return read_documents(*tiny_dataset)[0]


def run_script(environment: dict[str, object], *flags: str) -> subprocess.CompletedProcess:
    """`cd eval && bash scripts/evaluate.sh`, on the CPU."""
    values = {name: str(value) for name, value in environment.items()}
    return subprocess.run(
        ["bash", "scripts/evaluate.sh", "--device", "cpu", *flags],
        cwd=ROOT / "eval",
        env={**os.environ, "PYTHON": sys.executable, "INIT_ENV": "0", **values},
        capture_output=True,
        text=True,
        check=False,
    )


def make_settings(checkpoint: Path, dataset, output: Path) -> dict[str, object]:
    return {
        "MODEL_PATH": checkpoint,
        "DATA_PATH": dataset.json_path,
        "IMAGE_FOLDER": dataset.image_folder,
        "OUTPUT": output,
        "GEN_LENGTH": SAMPLING.gen_length,
        "BLOCK_LENGTH": SAMPLING.block_length,
        "STEPS": SAMPLING.steps,
        "GEN_KWARGS": f"temperature={SAMPLING.temperature},seed={SAMPLING.seed}",
        "BATCH_SIZE": 2,
    }


@pytest.fixture
def settings(tiny_checkpoint, tiny_dataset, tmp_path) -> dict[str, object]:
    return make_settings(tiny_checkpoint, tiny_dataset, tmp_path / "run")


def rewrite(settings: dict[str, object], tmp_path: Path, change) -> dict[str, object]:
    """The settings with a copy of the dataset that `change` edited in place."""
    entries = json.loads(Path(settings["DATA_PATH"]).read_text())
    change(entries)
    path = tmp_path / "test_changed.json"
    path.write_text(json.dumps(entries))
    return {**settings, "DATA_PATH": path}


def write_alone(settings: dict[str, object], documents: list[Document]) -> list[Report]:
    """The reports as one process writes them, in one batch, in fp32."""
    writer = ReportWriter.from_pretrained(settings["MODEL_PATH"], device="cpu")
    requests = [Request(d.images, d.prompt, seed=i) for i, d in enumerate(documents)]
    return writer.write(requests, SAMPLING)


class Finished(NamedTuple):
    """A whole run of evaluate.sh, on samples most of which the model gets right."""

    settings: dict[str, object]
    alone: list[Report]
    stdout: str

    @property
    def folder(self) -> Path:
        return Path(self.settings["OUTPUT"])

    def results(self) -> dict:
        return json.loads((self.folder / "results.json").read_text())

    def rank_files(self) -> list[Path]:
        return sorted((self.folder / PREDICTIONS_FOLDER).iterdir())


@pytest.fixture(scope="module")
def finished(tiny_checkpoint, tiny_dataset, tmp_path_factory) -> Finished:
    """Two processes, batches of two, seven samples: of unequal shares."""
    folder = tmp_path_factory.mktemp("finished")
    settings = make_settings(tiny_checkpoint, tiny_dataset, folder / "run")
    alone = write_alone(settings, read_documents(*tiny_dataset)[0])

    def expect_what_is_written(entries: list[dict]) -> None:
        for entry, report in list(zip(entries, alone, strict=True))[:5]:
            entry["conversations"][1]["value"] = report.text

    settings = {**rewrite(settings, folder, expect_what_is_written), "NPROC": 2}
    done = run_script(settings)
    assert done.returncode == 0, done.stderr
    return Finished(settings, alone, done.stdout)


def test_two_processes_write_each_of_seven_samples_exactly_once(finished, documents):
    ids = [document.id for document in documents]
    shares = [
        [json.loads(line)["id"] for line in path.read_text().splitlines()]
        for path in finished.rank_files()
    ]
    assert shares == [ids[0::2], ids[1::2]]
    assert [prediction.id for prediction in read_predictions(finished.folder)] == ids
    assert not (finished.folder / "cache").exists()


def test_in_fp32_no_report_depends_on_the_batch_size_or_the_number_of_processes(finished):
    """Two processes with batches of two and one, against one batch of seven."""
    predictions = read_predictions(finished.folder)
    for prediction, report in zip(predictions, finished.alone, strict=True):
        assert prediction.prediction == report.text
        assert prediction.decided_at == tuple(report.decided_at)
        assert prediction.confidence == pytest.approx(report.confidence, abs=1e-5)
        assert len(prediction.tokens) == len(prediction.confidence)
        assert (prediction.ended, prediction.nfe) == (report.ended, report.nfe)


def test_the_results_hold_every_value_its_interval_and_the_protocol(finished):
    results, predictions = finished.results(), read_predictions(finished.folder)
    texts = [[getattr(p, side) for p in predictions] for side in ("reference", "prediction")]
    for name, part in nlg.measure(*texts).items():
        assert results["metrics"][name] == {m: metric.value() for m, metric in part.metrics.items()}
        if name == "rexrank":  # the leaderboard's BLEU-2 alone
            continue
        assert f"{name}/METEOR" in finished.stdout
        low, high = results["intervals"][name]["METEOR"]
        assert low < results["metrics"][name]["METEOR"] < high
    assert 0.3 < results["metrics"]["raw"]["METEOR"] < 1
    assert (results["n"], results["n_studies"], results["n_empty"]) == (7, 7, 0)
    assert set(results["clinical"]) == {"as_positive", "as_negative"}
    assert results["health"]["truncated"] == sum(not p.ended for p in predictions)
    for name, (low, high) in results["intervals"]["health"].items():
        assert low <= results["health"][name] <= high
        assert f"health/{name}" in finished.stdout
    assert results["external"] == {}

    protocol = results["protocol"]
    assert protocol["tokenizers"] == {
        "raw": "ptb",
        **dict.fromkeys(("r2gen", "r2gen-cut", "rexrank"), "white space"),
    }
    assert (protocol["task"], protocol["split"], protocol["processes"]) == ("mimic_cxr", "test", 2)
    assert protocol["checkpoint_id"] == checkpoint_id(finished.settings["MODEL_PATH"])
    assert SamplingConfig.from_dict(protocol["generation"]) == SAMPLING
    digest = hashlib.sha256(Path(finished.settings["DATA_PATH"]).read_bytes()).hexdigest()
    assert [(part["n"], part["sha256"]) for part in protocol["data"]] == [(7, digest)]


def test_a_run_ends_with_its_page_and_prints_where_it_is(finished):
    page = finished.folder / "report.html"
    assert finished.stdout.splitlines()[-1] == str(page)
    assert "7 reports</title>" in page.read_text(encoding="utf-8")


def test_a_killed_run_continues_to_identical_results(finished, tmp_path):
    """What a kill leaves: predictions up to some byte of each process's file, and no results."""
    folder = tmp_path / "killed"
    shutil.copytree(finished.folder, folder)
    (folder / "results.json").unlink()
    (folder / "predictions.jsonl").unlink()
    first, second = sorted((folder / PREDICTIONS_FOLDER).iterdir())
    second.unlink()
    written = first.read_bytes()
    first.write_bytes(written[:-30])
    assert evaluate.main(same_run({**finished.settings, "OUTPUT": folder})) == 0
    assert json.loads((folder / "results.json").read_text()) == finished.results()
    assert (folder / "predictions.jsonl").read_bytes() == (
        finished.folder / "predictions.jsonl"
    ).read_bytes()
    assert first.read_bytes().startswith(b"".join(written.splitlines(True)[:2]))  # kept


def test_baselines_are_added_to_the_run_without_a_second_start(finished, tmp_path, monkeypatch):
    """The run's own predictions are there already; only the baselines are made. Without METEOR,
    which would start four times."""
    monkeypatch.setattr(java, "find_java", lambda: None)
    folder = tmp_path / "with_baselines"
    shutil.copytree(finished.folder, folder)
    asked = {}

    def generate(plan: run.Plan, place: Path, samples: list[Document]) -> list[Prediction]:
        asked[place.name] = samples
        return read_predictions(finished.folder)

    monkeypatch.setattr(run, "generate", generate)
    settings = {**finished.settings, "OUTPUT": folder}
    flags = ["--baselines", "normal", "nearest", "blank"]
    flags += ["--train-data", str(settings["DATA_PATH"])]
    assert evaluate.main(same_run(settings, *flags)) == 0

    results = json.loads((folder / "results.json").read_text())
    expected = {k: v for k, v in finished.results()["metrics"]["r2gen"].items() if k != "METEOR"}
    assert results["metrics"]["r2gen"] == expected
    names = ["most frequent normal report", "nearest training image", "model with a blank image"]
    assert list(results["baselines"]) == names
    assert results["baselines"][names[0]]["health"]["length_ratio"] > 0
    assert results["baselines"][names[0]]["health"]["truncated"] is None
    # Trained and tested on the same samples: the nearest image is the sample's own.
    nearest = results["baselines"]["nearest training image"]
    assert nearest["raw"]["ROUGE-L"] == pytest.approx(1.0)
    assert nearest["as_positive"]["micro_14"]["f1"] == 1.0
    normal = read_predictions(folder / "baselines" / "normal")
    assert {p.prediction for p in normal} == {"No acute cardiopulmonary process."}
    pixels = {Image.open(path).getextrema() for d in asked["blank"] for path in d.images}
    assert pixels == {(128, 128)}


def test_a_run_that_lmms_eval_could_not_do_fails_with_the_reason(settings, tmp_path, capfd):
    broken = tmp_path / "broken"
    shutil.copytree(settings["MODEL_PATH"], broken)
    next(broken.glob("*.safetensors")).write_bytes(b"no tensors")
    assert evaluate.main(arguments({**settings, "MODEL_PATH": broken}, "--nproc", "1")) == 1
    said = capfd.readouterr().err
    last = said[said.rindex("error: lmms-eval failed") :]
    assert str(broken) in last or "safetensors" in last.lower()
    assert not (tmp_path / "run" / "results.json").exists()


def arguments(settings: dict[str, object], *flags: str) -> list[str]:
    names = ("MODEL_PATH", "DATA_PATH", "IMAGE_FOLDER", "OUTPUT")
    given = [(f"--{name.lower().replace('_', '-')}", settings.get(name)) for name in names]
    pairs = [text for name, value in given if value for text in (name, str(value))]
    return [*pairs, "--device", "cpu", *flags]


def same_run(settings: dict[str, object], *flags: str) -> list[str]:
    """The command line of `finished`, with other flags."""
    made = {
        "--batch-size": settings["BATCH_SIZE"],
        "--nproc": settings["NPROC"],
        "--gen-length": SAMPLING.gen_length,
        "--steps": SAMPLING.steps,
        "--gen-kwargs": settings["GEN_KWARGS"],
    }
    return arguments(settings, *(str(word) for pair in made.items() for word in pair), *flags)


@pytest.fixture
def refused(monkeypatch, capsys):
    """Call with a command line that must be refused before anything is launched: the message."""

    def launched(self: Launch) -> str:
        pytest.fail("lmms-eval was launched")

    monkeypatch.setattr(Launch, "run", launched)
    monkeypatch.setattr(evaluate, "_check_registered", lambda: None)

    def call(command: list[str]) -> str:
        try:
            status = evaluate.main(command)
        except SystemExit as stop:  # argparse
            status = stop.code
        assert status == 2
        return capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gen-kwargs", "temprature=1"], "did you mean 'temperature'"),
        (["--gen-kwargs", "temperature"], "write key=value"),
        (["--gen-length", "8", "--gen-kwargs", "gen_length=9"], "gen_length is given twice"),
        (["--gen-length", "8", "--block-length", "3"], "not a multiple of block_length=3"),
        (["--batch-size", "0"], "argument --batch-size: '0' is not a whole number of at least 1"),
        (["--nproc", "0"], "argument --nproc: '0' is not a whole number of at least 1"),
        (["--task", "chexpert"], "known: iu_xray, mimic_cxr"),
        (["--baselines", "nearest"], "'nearest' needs --train-data"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(refused, settings, flags, message):
    assert message in refused(arguments(settings, *flags))
    assert not Path(settings["OUTPUT"]).exists()


def test_more_processes_than_gpus_are_refused(monkeypatch, refused, settings):
    monkeypatch.setattr(evaluate, "_gpus", lambda: 2)
    command = [*arguments(settings, "--nproc", "3"), "--device", "auto"]
    assert "--nproc=3 but 2 GPUs" in refused(command)


def test_a_checkpoint_that_is_none_is_refused(refused, settings, tmp_path):
    assert "no config.json" in refused(arguments({**settings, "MODEL_PATH": tmp_path}))
    comma = tmp_path / "a,b"
    comma.mkdir()
    (comma / "config.json").write_text("{}")
    assert "move or link it" in refused(arguments({**settings, "MODEL_PATH": comma}))


def test_a_run_with_other_settings_is_neither_continued_nor_replaced_unasked(refused, settings):
    output = Path(settings["OUTPUT"])
    output.mkdir()
    (output / "settings.json").write_text('{"batch_size": 64}')
    (output / "results.json").write_text("{}")
    message = refused(arguments(settings))
    assert "batch_size: 64 before, 8 now" in message
    assert "pass --overwrite" in message
    assert (output / "results.json").exists()
    open_folder(output, {"batch_size": 8}, overwrite=True)
    assert not (output / "results.json").exists()


def test_a_folder_with_other_files_is_never_written_to(refused, settings):
    output = Path(settings["OUTPUT"])
    output.mkdir()
    (output / "thesis.tex").write_text("do not lose me")
    message = refused(arguments(settings, "--overwrite"))
    assert "something other than an evaluation" in message
    assert [path.name for path in output.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries[2].update(id="study-0"), "the first is 'study-0'"),
        (lambda entries: entries[1].update(image="p10/none.png"), "1 images are missing"),
        (lambda entries: entries[1].update(image="../x.png"), "leaves the image folder"),
        (lambda entries: entries[1]["conversations"].pop(), "there is no answer"),
        (
            lambda entries: entries[1]["conversations"].extend(
                [{"from": "human", "value": "And?"}, {"from": "gpt", "value": "No."}]
            ),
            "'study-1' has 4 turns",
        ),
        (lambda entries: entries.clear(), "holds no entry"),
    ],
)
def test_a_dataset_that_cannot_be_scored_is_refused(refused, settings, tmp_path, change, message):
    assert message in refused(arguments(rewrite(settings, tmp_path, change)))


def test_images_that_cannot_be_read_are_all_named_before_anything_starts(
    refused, settings, tmp_path
):
    folder = tmp_path / "images"
    shutil.copytree(settings["IMAGE_FOLDER"], folder)
    (folder / "p10" / "image1.png").write_bytes(b"")
    (folder / "p10" / "image5.png").write_bytes((folder / "p10" / "image5.png").read_bytes()[:99])
    message = refused(arguments({**settings, "IMAGE_FOLDER": folder}))
    assert "2 images cannot be read:" in message
    for name, entry in (("image1.png", "study-1"), ("image5.png", "study-5")):
        assert f"image '{folder}/p10/{name}' of entry '{entry}'" in message
    assert not Path(settings["OUTPUT"]).exists()


def test_an_evaluation_of_a_folder_in_use_stops_and_names_who_uses_it(refused, settings):
    with locked(Path(settings["OUTPUT"])):
        message = refused(arguments(settings))
        assert f"is in use by process {os.getpid()} on " in message
        assert not (Path(settings["OUTPUT"]) / "settings.json").exists()


LAUNCH = """
import sys
from pathlib import Path
from llava.eval.run.lmms_run import Launch

class Run(Launch):
    def command(self):
        return [*super().command()[:5], sys.argv[2]]

Run(Path(sys.argv[1]), "", "", batch_size=1, processes=1, on_gpu=False).run()
"""
WORKER = """
import os, threading
from llava.command_line import end_with_parent
from llava.eval.run.lmms_run import LAUNCHER

end_with_parent(int(os.environ[LAUNCHER]))
pipe = open(os.environ["PIPE"], "w")
print("working", file=pipe, flush=True)
threading.Event().wait()
"""


def test_the_processes_of_an_evaluation_that_is_killed_alone_end(tmp_path):
    """A named pipe is at its end when the last process that writes to it has ended."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-c", LAUNCH, str(tmp_path), str(tmp_path / "worker.py")]
    environment = {**os.environ, "PIPE": str(tmp_path / "pipe"), "PYTHONPATH": str(ROOT)}
    launcher = subprocess.Popen(command, env=environment)
    with launcher, (tmp_path / "pipe").open() as pipe:
        assert pipe.readline() == "working\n"
        launcher.kill()
        assert pipe.read() == ""


def test_the_documentation_lists_every_file_of_a_run(finished):
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for path in finished.folder.iterdir():
        assert f"`{path.name}{'/' if path.is_dir() else ''}" in text, path.name
    task = (ROOT / "eval" / "tasks" / "mimic_cxr" / "reports.yaml").read_text(encoding="utf-8")
    assert f"test: {DOCUMENTS_FILE}\n" in task


def test_an_image_that_links_out_of_its_folder_is_refused(refused, settings, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(settings["IMAGE_FOLDER"], folder)
    (tmp_path / "secret.png").write_bytes(b"")
    (folder / "p10" / "image1.png").unlink()
    (folder / "p10" / "image1.png").symlink_to(tmp_path / "secret.png")
    assert "leaves the image folder" in refused(arguments({**settings, "IMAGE_FOLDER": folder}))


def test_a_dataset_yaml_gives_the_samples_of_its_files_in_order(tiny_dataset, tmp_path, documents):
    entries = json.loads(tiny_dataset.json_path.read_text())
    parts = []
    for name, part in (("b", entries[:3]), ("a", entries[3:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
        folder = os.path.relpath(tiny_dataset.image_folder, tmp_path)
        parts.append({"json_path": f"{name}.json", "image_folder": folder})
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump({"datasets": parts}))
    found, sources = read_documents(path, None)
    assert found == documents
    assert [(Path(s.json_path).name, s.n) for s in sources] == [("b.json", 3), ("a.json", 4)]
    with pytest.raises(ValueError, match="names its own image folders"):
        read_documents(path, tiny_dataset.image_folder)


def test_the_reason_of_a_failure_is_that_of_the_first_process_to_fail():
    output = (
        "Loading: 100%\n[rank1]: Traceback (most recent call last):\n"
        "[rank1]: OSError: cannot read\n[rank1]: llava.images.loading.ImageError: x.png is broken\n"
        "[rank0]: RuntimeError: Connection closed by peer\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
    )
    assert error_in(output) == "llava.images.loading.ImageError: x.png is broken"
    assert error_in("all is well\n") is None


def test_the_processes_share_the_cores_and_stay_off_the_network(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    launch = Launch(tmp_path, "pretrained=x", "", batch_size=1, processes=3, on_gpu=False)
    environment = launch.environment()
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["ACCELERATE_USE_CPU"] == "true"
    assert Path(environment["LMMS_EVAL_DATASETS_CACHE"]).parent == tmp_path
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    environment = launch.environment()
    assert (environment["HF_HUB_OFFLINE"], environment["OMP_NUM_THREADS"]) == ("0", "5")
