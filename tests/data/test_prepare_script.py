"""scripts/prepare_mimic_cxr.sh on a fresh clone: it makes the environment before it needs it."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHOOSING = ("PYTHON", "VIRTUAL_ENV", "INIT_ENV")


def test_a_fresh_clone_gets_its_environment_and_the_flags_reach_the_conversion(tmp_path):
    names = ("scripts/common.sh", "scripts/prepare_mimic_cxr.sh", "pyproject.toml")
    for name in (*names, "requirements/constraints.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    # An installation that makes a program which prints what it is called with.
    (tmp_path / "init_env.sh").write_text(
        'mkdir -p "$(dirname "$PYTHON")"\n'
        'printf \'#!/bin/sh\\necho "ran $*"\\n\' > "$PYTHON"\nchmod +x "$PYTHON"\n'
    )
    done = subprocess.run(
        ["bash", str(tmp_path / "scripts/prepare_mimic_cxr.sh"), "--per-study", "first"],
        env={name: value for name, value in os.environ.items() if name not in CHOOSING},
        cwd=tmp_path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ran -m llava.data.mimic_cxr --annotation ")
    assert done.stdout.rstrip().endswith("--per-study first")
