"""One run at a time in an output folder, and no process that outlives its launcher."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from training_runs import before_step, run, start

from llava.train.run import exits
from llava.train.train import main

SHORT = ("--num_train_epochs", "1", "--mm_tunable_parts", "mm_mlp_adapter")


def wait_here(reached: Path, go_on: Path) -> None:
    """Say that the step is reached, then wait; both are named pipes."""
    reached.write_text("here")
    go_on.read_text()


def test_a_second_start_is_refused_by_all_its_processes_and_a_dead_holder_is_followed(
    tmp_path, command
):
    reached, go_on = tmp_path / "reached", tmp_path / "go_on"
    for pipe in (reached, go_on):
        os.mkfifo(pipe)
    arguments = command(tmp_path / "run", *SHORT)
    pause = partial(before_step, 1, partial(wait_here, reached, go_on))
    first = start(arguments, tmp_path / "first.log", hook=pause)
    assert reached.read_text() == "here"
    log = tmp_path / "second.log"
    assert run(arguments, log, 2) == [exits.USAGE] * 2
    assert f"is in use by process {first.pid} on " in log.read_text()
    assert (tmp_path / "run" / "run_arguments.json").is_file()
    assert run([*arguments, "--overwrite"], log) == [exits.USAGE]
    assert (tmp_path / "run" / "run_arguments.json").is_file()
    first.kill()
    first.join()
    assert run(arguments, tmp_path / "third.log") == [exits.DONE]
    assert run([*arguments, "--overwrite"], tmp_path / "fourth.log") == [exits.DONE]


@pytest.mark.parametrize("option", ["--pretrain_mm_mlp_adapter", "--model_name_or_path"])
def test_weights_of_an_unfinished_run_are_not_a_start(option, tmp_path, command, capsys):
    unfinished = tmp_path / "stage1"
    unfinished.mkdir()
    (unfinished / "run_arguments.json").write_text("{}")
    assert main(command(tmp_path / "run", option, unfinished)) == exits.USAGE
    assert f"{option} {unfinished} is the folder of a run that has not" in capsys.readouterr().err


WORKER = """
import os, signal, sys
from llava.train.launch import end_with_launcher

signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.write(1, b"saved\\n") * 0))
end_with_launcher()
os.write(1, b"running\\n")
while True:
    signal.pause()
"""


def test_processes_save_and_end_when_their_launcher_alone_is_killed(tmp_path):
    (tmp_path / "run.py").write_text(WORKER)
    command = [sys.executable, "-m", "llava.train.launch", "--standalone", "--nproc-per-node", "2"]
    with subprocess.Popen(
        [*command, str(tmp_path / "run.py")], stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert [launcher.stdout.readline() for _ in range(2)] == ["running\n"] * 2
        launcher.send_signal(signal.SIGKILL)
        assert launcher.stdout.read() == "saved\n" * 2  # ends when no process holds the pipe
