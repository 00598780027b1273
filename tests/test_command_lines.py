"""Every command line answers `--help` at once, in words, without a heavy import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    "llava.data.mimic_cxr.build",
    "llava.data.mimic_cxr",
    "llava.data.chexpert_plus",
    "llava.data.inspect",
    "llava.data.iu_xray",
    "llava.data.padchest_gr",
    "llava.data.resize",
    "llava.data.rexgradient",
    "llava.data.table",
    "llava.phantom",
    "llava.phantom.blank",
    "llava.phantom.raw_layout",
    "llava.train.launch",
    "llava.train.merge_lora",
    "llava.train.self_distillation",
    "llava.train.train",
    "llava.phantom.backbones",
    "llava.eval.compare",
    "llava.eval.evaluate",
    "llava.eval.external",
    "llava.phantom.results",
    "llava.eval.report_page",
    "llava.generate",
    "llava.serve",
)
PROBE = """
import os, runpy, sys
sys.path.insert(0, os.path.dirname({name!r}))  # as python does for a script
sys.argv = [{name!r}, "--help"]
try:
    runpy.{runner}({name!r}, run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = sorted({{"torch", "transformers", "matplotlib", "lmms_eval"}} & set(sys.modules))
assert not heavy, heavy
"""


def help_of(name: str, runner: str) -> str:
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(name=name, runner=runner)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    after = os.times()  # of the processor: what else a machine does is not the command's doing
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 2
    return done.stdout


@pytest.mark.parametrize("module", MODULES)
def test_help_is_quick_and_tells_what_the_command_does(module):
    text = help_of(module, "run_module")
    assert text.startswith("usage: ")
    assert len(text.splitlines()) > 5


@pytest.mark.parametrize(
    "name", ["batch_drift", "build_mimic", "labeler", "metrics", "real_size", "report_page"]
)
def test_the_benchmarks_help_is_quick_too(name):
    assert "--output" in help_of(f"bench/{name}.py", "run_path")


@pytest.mark.parametrize(
    ("module", "option"),
    [
        ("arms", "--seeds"),
        ("autoregressive", "--stage"),
        ("gradient_variance", "--draws"),
        ("pool", "--jobs"),
        ("report", "--study"),
        ("run", "--arm"),
    ],
)
def test_nor_does_the_studys_take_long(module, option):
    assert option in help_of(f"bench.study.{module}", "run_module")


def test_every_command_line_of_the_library_is_listed_here():
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "llava").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert found == set(MODULES)
