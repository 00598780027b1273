"""`python -m llava.serve`: what it refuses, how it starts and stops, several processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from answering import FewProcesses, answer_with_pid
from running import client

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def refused(tiny_checkpoint, capsys):
    """The error of a command that does not start."""
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    from llava.serve.__main__ import main

    def run(*arguments):
        status = main(["--model-path", str(tiny_checkpoint), *map(str, arguments)])
        assert status == 2
        return capsys.readouterr().err

    return run


def test_an_address_that_others_reach_needs_a_token_that_is_worth_it(refused, tmp_path):
    assert "needs --token-file" in refused("--host", "0.0.0.0")
    short = tmp_path / "token"
    short.write_text("secret\n")
    error = refused("--host", "0.0.0.0", "--token-file", short)
    assert "at least 16" in error
    assert "secret" not in error
    assert "gone" in refused("--token-file", tmp_path / "gone")


def test_what_cannot_be_served_is_refused_before_a_model_is_loaded(refused, tmp_path):
    assert "nowhere" in refused("--model-path", tmp_path / "nowhere")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in refused("--port", port)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "drafts.csv").symlink_to(tmp_path / "elsewhere")
    assert "drafts.csv" in refused("--log-dir", tmp_path / "log")
    assert not (tmp_path / "elsewhere").exists()


HEAVY = {"datasets", "deepspeed", "lmms_eval", "matplotlib", "nltk", "pandas", "peft", "pydicom"}
HEAVY |= {"sklearn", "torchvision"}


def test_it_prints_a_loopback_address_imports_little_and_sigterm_finishes_what_runs(
    tiny_checkpoint, pictures, tmp_path
):
    """Nothing of training or evaluation is imported, not even to write a report."""
    command = [sys.executable, "-m", "llava.serve", "--model-path", str(tiny_checkpoint)]
    command += ["--port", "0", "--name", "tiny", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"}
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    name, address = process.stdout.readline().split(" at ")
    address = address.split()[0]
    assert (name, address.startswith("http://127.0.0.1:")) == ("tiny", True)
    body = {"images": [{"data": pictures[0]}], "sampling": {"gen_length": 96}, "stream": True}
    with client(address) as own, own.stream("POST", "/v1/reports", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        data = [line for line in lines if line.startswith("data: ")]
    assert json.loads(data[-1].removeprefix("data: "))["text"]
    process.communicate(timeout=60)
    error = (tmp_path / "errors").read_text()
    assert process.returncode == 0, error
    assert "Traceback" not in error
    timed = [line for line in error.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in timed}
    assert "torch" in imported
    assert not HEAVY & imported


@pytest.fixture
def supervised():
    """Runs `run_all` over the worker above: (its exit status, pids that answered)."""
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    from llava.serve.workers import STOP_SIGNALS, run_all

    before = [(sig, signal.getsignal(sig)) for sig in STOP_SIGNALS]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    pids, running = [], [True]

    def ask():
        with socket.create_connection(listener.getsockname(), timeout=20) as connection:
            pids.append(int(connection.recv(100)))

    def ask_often():
        deadline = time.monotonic() + 20
        while len(set(pids)) < 2 and time.monotonic() < deadline:
            both = [threading.Thread(target=ask) for _ in range(2)]
            for one in both:
                one.start()
            for one in both:
                one.join()
        if running:
            os.kill(os.getpid(), signal.SIGTERM)

    def run(name):
        def ready():
            listener.listen()
            if name != "fails":
                threading.Thread(target=ask_often).start()

        status = run_all(FewProcesses(name), listener, ready, answer_with_pid)
        running.clear()
        return status, pids

    yield run
    listener.close()
    for sig, handler in before:
        signal.signal(sig, handler)


def test_several_processes_answer_at_one_address_and_end_together(supervised):
    _, pids = supervised("works")
    assert len(set(pids)) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_process_that_ends_by_itself_ends_all(supervised):
    assert supervised("fails") == (1, [])
