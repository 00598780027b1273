"""What an interruption leaves of a file that is being written: nothing."""

import os
import signal
import subprocess
import sys

import pytest

from llava.command_line import STATUS, sigterm_unwinds
from llava.data.conversion.command import run_command
from llava.data.conversion.output import write_splits
from llava.store import whole_file


def test_an_error_and_a_sigterm_leave_no_half_file_and_the_old_one_stays(tmp_path):
    place = tmp_path / "a.json"
    place.write_text("old")

    def interrupted():
        with whole_file(place) as file:
            file.write("new")
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run_command(interrupted)
    assert ended.value.code == STATUS == 143
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(ValueError, match="full"), whole_file(place):
        raise ValueError("disk is full")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]


def test_what_a_killed_run_left_is_gone_after_the_next_one(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    running = os.getppid()
    for process in (ended.pid, running, "10" * 12):
        (tmp_path / f".train_llave_llada.json.{process}.partial").write_text("[")
    write_splits({}, tmp_path)
    left = {path.name.split(".")[-2] for path in tmp_path.glob(".*")}
    assert left == {str(running), "10" * 12}


def test_sigterm_is_the_callers_again_behind_the_block():
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_unwinds():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
