"""`python -m llava.generate --input` on several processes, and how a process knows its place."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava.generate import main
from llava.writing.processes import Processes, _first_node, _meeting_point

pytestmark = pytest.mark.whole_scripts
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (5, 8, 1)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}, (3, 4, 1)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "RANK": "0", "WORLD_SIZE": "2"}, (0, 2, 0)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, (0, 1, 0)),
        (
            {
                "SLURM_PROCID": "2",
                "SLURM_NTASKS": "4",
                "SLURM_JOB_ID": "7",
                "SLURM_STEP_ID": "0",
            },
            (2, 4, 0),
        ),
    ],
    ids=["alone", "torchrun", "srun", "torchrun in srun", "a job's own shell", "srun in a job"],
)
def test_a_process_finds_its_place_in_the_variables_of_its_launcher(environment, place):
    found = Processes(environment)
    assert (found.rank, found.size, found.local_rank) == place


def test_a_rank_outside_the_run_is_named():
    with pytest.raises(ValueError, match="SLURM_PROCID=4 is not below SLURM_NTASKS=4"):
        Processes({"SLURM_PROCID": "4", "SLURM_NTASKS": "4"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[003-010,012]", "gpu003"),
        ("a1,a2", "a1"),
        ("node7", "node7"),
        ("r[1-2]-n", "r1-n"),
        ("", ""),
    ],
)
def test_the_processes_of_a_job_meet_on_its_first_node(nodes, first):
    assert _first_node(nodes) == first
    given = {"SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "40007"}
    assert _meeting_point(given) == f"tcp://{first or '127.0.0.1'}:20007"


@pytest.mark.parametrize("own", [lambda: "done", lambda: int("x")])
def test_an_error_of_one_process_is_raised_in_all(monkeypatch, own):
    """The other process of the two has failed; this one may have, too."""
    processes = Processes({"RANK": "0", "WORLD_SIZE": "2"})
    monkeypatch.setattr(processes, "gather", lambda problem: [problem, "the disk is full"])
    with pytest.raises(ValueError, match=r"the disk is full|invalid literal"):
        processes.agree(own)
    monkeypatch.setattr(processes, "gather", lambda problem: [problem, None])
    assert processes.agree(lambda: "done") == "done"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(7):
        pixels = random.integers(0, 256, (30, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"image{number}.png")
    return folder


@pytest.fixture(scope="module")
def alone(folder, tiny_checkpoint, tmp_path_factory) -> Path:
    """The reports as one process writes them."""
    output = tmp_path_factory.mktemp("alone") / "reports.jsonl"
    assert main(arguments(tiny_checkpoint, folder, output)) == 0
    return output


def arguments(checkpoint: Path, folder: Path, output: Path) -> list[str]:
    """Sampled: the greedy reports of an untrained model are empty."""
    given = ["--model-path", checkpoint, "--input", folder, "--output", output, "--device", "cpu"]
    given += ["--gen-length", 8, "--batch-size", 2, "--temperature", 1, "--dtype", "float32"]
    return list(map(str, given))


def environment(**more: object) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in more.items()}}


def same_reports(output: Path, expected: Path) -> bool:
    def reports(path: Path) -> list[tuple]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [(row["id"], row["prediction"], row["tokens"], row["decided_at"]) for row in rows]

    return reports(output) == reports(expected)


def test_torchrun_s_processes_write_what_one_process_writes(
    folder, alone, tiny_checkpoint, tmp_path
):
    output = tmp_path / "reports.jsonl"
    (folder / "zbroken.png").write_bytes(b"not an image")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "llava.generate"]
    try:
        done = subprocess.run(
            command + arguments(tiny_checkpoint, folder, output),
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
        )
    finally:
        (folder / "zbroken.png").unlink()
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("failed: 'zbroken.png'") == 1
    assert "7 reports in" in done.stderr
    assert "1 failed" in done.stderr
    assert same_reports(output, alone)
    assert not (tmp_path / "reports.jsonl.parts").exists()


def test_slurm_s_processes_continue_what_another_number_of_processes_left(
    folder, alone, tiny_checkpoint, tmp_path, monkeypatch, capfd
):
    """Three processes have left a batch, half a batch and half a line; two finish the run."""
    output, lines = tmp_path / "reports.jsonl", alone.read_text().splitlines(keepends=True)
    shutil.copy(alone.with_name("reports.jsonl.settings.json"), tmp_path)
    parts = tmp_path / "reports.jsonl.parts"
    parts.mkdir()
    for rank, left in enumerate([lines[0] + lines[1], lines[2], lines[4][:40]]):
        (parts / f"rank{rank}.jsonl").write_text(left)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (("SLURM_NTASKS", 2), ("MASTER_PORT", port)):
        monkeypatch.setenv(name, str(value))
    command = [sys.executable, "-m", "llava.generate", *arguments(tiny_checkpoint, folder, output)]
    second = subprocess.Popen(
        command, cwd=ROOT, env=environment(SLURM_PROCID=1, SLURM_LOCALID=1), stderr=subprocess.PIPE
    )
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert main(arguments(tiny_checkpoint, folder, output)) == 0
    said = capfd.readouterr().err
    assert second.wait() == 0, second.stderr.read()
    assert "5 reports in" in said
    assert "2 kept from before" in said
    assert same_reports(output, alone)
