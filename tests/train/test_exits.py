"""The end of a process: its code comes back, whatever libraries do while they are taken down."""

import subprocess
import sys

from llava.train.run import exits

RUN = """
import atexit, os, sys
from llava.train.run import exits

class Library:
    def __del__(self):
        os.abort()

kept = Library()

def main():
    atexit.register(lambda: print("handler", end=""))
    print("finished,", end=" ")
    {last}

exits.exit_with(main)
"""


def ended(last: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN.format(last=last)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_finished_run_is_not_aborted_by_what_is_taken_down_after_it():
    done = ended("return exits.NONFINITE")
    assert (done.returncode, done.stdout) == (exits.NONFINITE, "finished, handler")


def test_an_exception_of_the_run_is_shown_and_its_teardown_is_the_ordinary_one():
    done = ended("raise KeyError('missing')")
    assert "KeyError: 'missing'" in done.stderr
    assert done.returncode < 0, "the library was not taken down"
