"""Hints for mistyped names, checked numbers, and processes that end with their launcher."""

import argparse
import signal
import subprocess
import sys

import pytest

from llava.command_line import hint, whole_number

KNOWN = ("json_path", "image_folder", "sampling")


@pytest.mark.parametrize("slip", ["image_root", "image_floder", "imagefolder", "IMAGE_folder"])
def test_a_slip_finds_the_nearest_known_name(slip):
    assert hint(slip, KNOWN) == "did you mean 'image_folder'?"


@pytest.mark.parametrize("other", ["xyz", "", 7, None, ("a", "b")])
def test_what_resembles_none_gets_them_all(other):
    assert hint(other, KNOWN) == "known: json_path, image_folder, sampling"


@pytest.mark.parametrize("text", ["0", "-3", "9", "1.5", "two", "", "nan", "1" * 30])
def test_a_number_outside_its_range_is_named_with_the_range(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not a whole number of at least 1 and"):
        whole_number(1, 8)(text)
    assert whole_number(1, 8)("8") == 8


LAUNCHER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
child.wait()
"""
WORKER = """
import threading
from llava.command_line import end_with_parent
end_with_parent()
print("working", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("stderr_is_read", [True, False])
def test_a_process_ends_when_its_launcher_alone_is_killed(stderr_is_read):
    """The worker's end of the pipe closes when it ends."""
    command = [sys.executable, "-c", LAUNCHER, WORKER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as launcher:
        assert launcher.stdout.readline() == b"working\n"
        if not stderr_is_read:
            launcher.stderr.close()
        launcher.send_signal(signal.SIGKILL)
        assert launcher.stdout.read() == b""
        if stderr_is_read:
            assert b"the launcher (process" in launcher.stderr.read()
