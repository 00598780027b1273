"""How a run is started on one node, on many, and under SLURM, and with which code it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from llava.train import launch
from llava.train.run import exits

ROOT = Path(__file__).resolve().parents[2]
CHOSEN = ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "NPROC", "RANK", "WORLD_SIZE")
FAKE_PYTHON = """#!/usr/bin/env bash
if [[ "$1" == -c ]]; then echo "$FAKE_GPUS"; exit; fi
echo "RANK=${RANK:-} LOCAL_RANK=${LOCAL_RANK:-} WORLD_SIZE=${WORLD_SIZE:-}"
echo "MASTER=${MASTER_ADDR:-}:${MASTER_PORT:-}"
printf '%s ' "$@"
"""


@pytest.fixture
def start(tmp_path):
    """What stage 1's script would run, with given GPUs and variables; nothing is trained."""
    for name, text in {
        "python": FAKE_PYTHON,
        "scontrol": "#!/usr/bin/env bash\n[[ $3 == 'node[7-8]' ]] && printf 'node7\\nnode8\\n'\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(gpus: int, **variables: object) -> str:
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in CHOSEN and not key.startswith("SLURM_")
        }
        environment = kept | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHON": str(tmp_path / "python"),
            "INIT_ENV": "0",
            "FAKE_GPUS": str(gpus),
            **{key: str(value) for key, value in variables.items()},
        }
        done = subprocess.run(
            ["bash", "scripts/llada_v_pretrain.sh"],
            cwd=ROOT / "train",
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def accumulation(text: str) -> int:
    words = text.split()
    return int(words[words.index("--gradient_accumulation_steps") + 1])


def test_one_process_needs_no_launcher(start):
    text = start(gpus=1)
    assert "-m llava.train.train" in text
    assert "launch" not in text
    assert accumulation(text) == 8


def test_one_node_starts_a_process_for_each_of_its_gpus(start):
    text = start(gpus=4)
    assert "-m llava.train.launch --standalone --nproc-per-node 4 -m llava.train.train" in text
    assert accumulation(text) == 2


def test_several_nodes_meet_where_the_variables_say(start):
    text = start(gpus=4, NNODES=2, NODE_RANK=1, MASTER_ADDR="head", MASTER_PORT=1234)
    assert "--nproc-per-node 4 --nnodes 2 --node-rank 1" in text
    assert "--master-addr head --master-port 1234" in text
    assert accumulation(text) == 1


SLURM = {"SLURM_JOB_ID": 41, "SLURM_STEP_NUM_NODES": 2, "SLURM_STEP_NODELIST": "node[7-8]"}


def test_a_slurm_task_per_node_starts_that_nodes_processes(start):
    text = start(gpus=4, **SLURM, SLURM_STEP_NUM_TASKS=2, SLURM_NODEID=1, SLURM_PROCID=1)
    assert "--nproc-per-node 4 --nnodes 2 --node-rank 1 --master-addr node7" in text
    assert "--master-port 20041" in text
    assert accumulation(text) == 1


@pytest.mark.parametrize(("gpus", "local_rank"), [(4, 2), (1, 0)])
def test_a_slurm_task_per_gpu_is_a_process_itself(start, gpus, local_rank):
    """gpus: what a task sees, its node's or only its own."""
    tasks = {"SLURM_STEP_NUM_TASKS": 8, "SLURM_NODEID": 1, "SLURM_PROCID": 6, "SLURM_LOCALID": 2}
    text = start(gpus=gpus, **SLURM, **tasks)
    assert f"RANK=6 LOCAL_RANK={local_rank} WORLD_SIZE=8" in text
    assert "MASTER=node7:20041" in text
    assert "launch" not in text
    assert accumulation(text) == 1


def test_an_allocation_without_srun_is_one_node(start):
    text = start(gpus=2, SLURM_JOB_ID=41, SLURM_NNODES=2, SLURM_JOB_NODELIST="node[7-8]")
    assert "--standalone --nproc-per-node 2" in text


def failures(*codes: int) -> dict[int, ProcessFailure]:
    found = {}
    for rank, code in enumerate(codes):
        failure = ProcessFailure(rank, 100 + rank, code, "/nowhere")
        failure.timestamp = rank
        found[rank] = failure
    return found


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((exits.INTERRUPTED, exits.INTERRUPTED), 75), ((exits.NONFINITE,), 3), ((-9, 1), 137)],
)
def test_the_launcher_ends_as_the_first_process_that_failed(monkeypatch, codes, expected):
    def fail(_):
        raise ChildFailedError("train", failures(*codes))

    monkeypatch.setattr("torch.distributed.run.main", fail)
    assert launch.main(["-m", "llava.train.train"]) == expected


@pytest.mark.parametrize(("saved", "expected"), [(True, exits.INTERRUPTED), (False, 143)])
def test_a_signal_to_the_launcher_counts_as_interrupted_once_the_run_is_saved(
    monkeypatch, tmp_path, saved, expected
):
    def stop(_):
        raise SignalException("stopped", signal.SIGTERM)

    if saved:
        (tmp_path / "interrupted.json").write_text("{}")
    monkeypatch.setattr("torch.distributed.run.main", stop)
    assert launch.main(["-m", "train", "--output_dir", str(tmp_path)]) == expected


@pytest.mark.parametrize(
    "more",
    [("--output_dir={}",), ("--output-dir", "{}"), ("--output_dir", "first", "--output_dir", "{}")],
)
def test_the_launcher_reads_the_output_folder_as_the_run_does(tmp_path, more):
    (tmp_path / "interrupted.json").write_text("{}")
    argv = ["--standalone", "-m", "llava.train.train", *(each.format(tmp_path) for each in more)]
    assert launch.was_saved(argv)
    assert not launch.was_saved([*argv, "--output_dir", str(tmp_path / "other")])


RUN = """
import os, pathlib, signal, sys

def save(*_):
    pathlib.Path(sys.argv[2], "interrupted.json").write_text("{}")
    sys.exit(75)

signal.signal(signal.SIGTERM, save)
os.write(1, b"running\\n")  # in one piece: print may be cut by the other process
signal.pause()
"""


def test_a_real_signal_passes_through_torchrun_and_the_code_comes_back(tmp_path):
    """The real launcher and torchrun, over a program that saves and exits as a run does."""
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, "-m", "llava.train.launch", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "run.py"), "--output_dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert [process.stdout.readline() for _ in range(2)] == ["running\n"] * 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == exits.INTERRUPTED
