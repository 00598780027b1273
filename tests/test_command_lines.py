"""Every command line answers `--help` in words, without a heavy import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHES = ["batch_drift", "build_mimic", "labeler", "metrics", "real_size", "report_page"]
PROBE = """
import contextlib, io, json, os, runpy, sys
sys.path.insert(0, "bench")  # as python does for a script
found = {}
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            (runpy.run_path if name.endswith(".py") else runpy.run_module)(
                name, run_name="__main__"
            )
        except SystemExit as stop:
            assert not stop.code, (name, stop.code)
    heavy = sorted({"torch", "transformers", "matplotlib", "lmms_eval"} & set(sys.modules))
    assert not heavy, (name, heavy)
    found[name] = printed.getvalue()
print(json.dumps(found))
"""


def commands(folder: str) -> list[str]:
    """The modules in a folder that can be run."""
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / folder).rglob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    )


@pytest.fixture(scope="module")
def help_texts() -> dict[str, str]:
    """What each command prints for `--help`, asked one after another in one process, so that the
    first heavy import is found with its command."""
    names = [*commands("llava"), *commands("bench/study"), *(f"bench/{n}.py" for n in BENCHES)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help_tells_what_each_command_does_without_a_heavy_import(help_texts):
    assert len(help_texts) > 30
    for name, text in help_texts.items():
        assert text.startswith("usage: "), name
        assert len(text.splitlines()) > 5, name


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("llava.train.train", "--attention_mode"),
        ("llava.generate", "--gen-length"),
        ("llava.eval.evaluate", "--train-limit"),
        ("bench.study.arms", "--seeds"),
        ("bench.study.run", "--arm"),
        ("bench/metrics.py", "--output"),
    ],
)
def test_the_help_lists_the_commands_own_options(help_texts, name, option):
    assert option in help_texts[name]
