"""The demo, end to end in a fresh checkout, at a size that teaches nothing but runs everything."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.whole_scripts
ROOT = Path(__file__).resolve().parents[1]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The files that git tracks here, as a repository of their own."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to it")
    folder = tmp_path_factory.mktemp("demo") / "checkout"
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "as it is")
    return folder


@pytest.mark.timeout(400)
def test_the_demo_runs_and_leaves_git_status_clean(checkout):
    # In one process: two, by the same scripts, are test_scripts_train's.
    small = {
        "NPROC": 1,
        "TRAIN_CASES": 16,
        "TEST_CASES": 4,
        "VISION_EPOCHS": 1,
        "LANGUAGE_EPOCHS": 1,
    }
    environment = {
        **os.environ,
        **{name: str(value) for name, value in small.items()},
        "STAGE2_EPOCHS": "1",
        "PYTHON": sys.executable,
        "INIT_ENV": "0",
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "scripts/demo.sh"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((checkout / "exp" / "demo" / "results.json").read_text())
    assert results["n"] == results["n_blank"] == 4
    assert results["checker_on_references"] == 1.0
    assert 0 < results["seconds"] < 380
    assert {"micro_f1", "blank_micro_f1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"} <= results.keys()
    assert (checkout / "exp" / "demo" / "examples.png").is_file()
    assert git(checkout, "status", "--porcelain") == ""
