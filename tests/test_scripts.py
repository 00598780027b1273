"""The scripts: their form, the environment that they choose, and when they install one.

Nothing is installed here: `checkout` is a copy of the scripts whose init_env.sh only says that it
ran, and the environments are empty folders with an interpreter.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ["", "scripts", "train/scripts", "eval/scripts", "bench"]
SCRIPTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.sh"))
SCRIPTS.append(ROOT / ".ci" / "run")
INSTALLERS = ["init_env.sh", "scripts/common.sh", "pyproject.toml", "requirements/constraints.txt"]
ACTIVE = ("PYTHON", "VIRTUAL_ENV", "INIT_ENV", "OMP_NUM_THREADS", "TEST_WORKERS")

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)


def logical_lines(script: Path) -> list[str]:
    """The script's lines, those that end in a backslash joined with what follows."""
    return script.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def run_bash(command: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A bash command under this process's environment less what chooses an interpreter."""
    environment = {key: value for key, value in os.environ.items() if key not in ACTIVE}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what the environment is made from, in a folder with a space in its name."""
    folder = tmp_path / "a checkout"
    for name in [*INSTALLERS, "scripts/test.sh", ".ci/run"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "init_env.sh").write_text("echo init_env ran\n")
    return folder


@pytest.fixture
def environment(checkout) -> Path:
    """A virtual environment that says it holds the checkout, and its stamp."""
    folder = checkout.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    record = site / "llada_v_qwen-0.1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: llada-v-qwen\nVersion: 0.1.0\n")
    (record / "direct_url.json").write_text(json.dumps({"url": checkout.as_uri()}))
    run_bash("source scripts/common.sh; environment_stamp write", checkout, **python_of(folder))
    return folder


def python_of(environment: Path) -> dict[str, str]:
    return {"PYTHON": str(environment / "bin" / "python")}


@every_script
def test_a_script_parses_is_strict_and_names_no_package_index_or_machine(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert not re.search(r"index-url|find-links|https?://|/(home|root|work|tmp)/", text)


@pytest.mark.parametrize("folder", ["train/scripts", "eval/scripts"])
def test_the_users_own_commands_pass_on_what_the_user_adds(folder):
    commands = [path for path in SCRIPTS if path.parent == ROOT / folder and path.stem != "launch"]
    assert commands
    for script in commands:
        assert logical_lines(script)[-1].endswith('"$@"'), script


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"PYTHON": "bin/given", "VIRTUAL_ENV": "{here}/active"}, "bin/given"),
        ({"VIRTUAL_ENV": "{here}/active"}, "active/bin/python"),
        ({}, ".venv/bin/python"),
    ],
    ids=["PYTHON wins", "then the active environment", "then .venv"],
)
def test_which_python_is_used(checkout, settings, expected):
    write_program(checkout / "bin" / "given", "exit 0")
    write_program(checkout / "active" / "bin" / "python", "exit 0")
    given = {key: value.format(here=checkout) for key, value in settings.items()}
    done = run_bash('source scripts/common.sh; echo "$PYTHON"', checkout, **given)
    assert done.stdout.strip() == str(checkout / expected), done.stderr


@pytest.mark.parametrize("name", ["PYTHON", "VIRTUAL_ENV"])
def test_an_interpreter_that_is_not_there_is_named(checkout, name):
    done = run_bash("source scripts/common.sh; echo used", checkout, **{name: "/no/such/place"})
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name}=/no/such/place" in done.stderr


def test_a_current_environment_is_used_as_it_is(checkout, environment):
    done = run_bash("source scripts/common.sh; need_env", checkout, **python_of(environment))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", INSTALLERS)
def test_a_changed_description_makes_the_environment_stale(checkout, environment, name):
    changed = checkout / name
    changed.write_text(changed.read_text() + "\n# changed\n")
    done = run_bash("source scripts/common.sh; need_env", checkout, **python_of(environment))
    stale = name != "scripts/common.sh"
    assert done.stdout == ("init_env ran\n" if stale else "")


def test_an_environment_of_another_checkout_is_stale(checkout, environment):
    moved = checkout.rename(checkout.with_name("moved"))
    done = run_bash("source scripts/common.sh; need_env", moved, **python_of(environment))
    assert done.stdout == "init_env ran\n"


def test_a_missing_environment_is_made_unless_the_user_says_no(checkout):
    assert run_bash("source scripts/common.sh; need_env", checkout).stdout == "init_env ran\n"
    done = run_bash("source scripts/common.sh; need_env; echo on", checkout, INIT_ENV="0")
    assert done.stdout == "on\n"


def test_cores_are_shared_unless_the_user_has_set_the_threads(checkout):
    show = 'source scripts/common.sh; share_cores 1000; echo "$OMP_NUM_THREADS"'
    assert run_bash(show, checkout).stdout == "1\n"
    assert run_bash(show, checkout, OMP_NUM_THREADS="7").stdout == "7\n"


def test_tests_run_in_as_many_workers_as_asked_with_the_users_flags_last(checkout):
    python = write_program(checkout / "bin" / "python", 'echo "$@"')
    settings = {"PYTHON": str(python), "INIT_ENV": "0", "TEST_WORKERS": "3"}
    done = run_bash("bash scripts/test.sh -k 'some name'", checkout, **settings)
    assert done.stdout == "-m pytest -n 3 --dist worksteal -k some name\n"
    done = run_bash("bash scripts/test.sh", checkout, **settings)
    assert done.stdout == "-m pytest -n 3 --dist worksteal -m not whole_scripts\n"
    assert "bash scripts/test.sh -m whole_scripts" in done.stderr


def install_with(checkout: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """The real init_env.sh, with nothing on PATH but these programs and a few of the system's."""
    shutil.copy(ROOT / "init_env.sh", checkout)
    folder = checkout / "path"
    for name, text in programs.items():
        write_program(folder / name, text)
    for name in ["bash", "dirname", "df", "awk"]:
        if name not in programs:
            (folder / name).symlink_to(shutil.which(name))
    done = run_bash(f'"{shutil.which("bash")}" init_env.sh', checkout, PATH=str(folder))
    assert not (checkout / ".venv").exists()
    return done


def test_an_old_or_a_bare_python_is_named_with_the_remedy(checkout):
    old = 'case "$1" in --version) echo Python 3.9.2 ;; *) exit 1 ;; esac'
    bare = 'case "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac'
    done = install_with(checkout, python3=old, **{"python3.12": bare})
    assert done.returncode == 2
    assert "python3 (Python 3.9.2)" in done.stderr
    assert "python3.12 (has no venv module)" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_a_full_disk_is_found_before_anything_is_installed(checkout):
    full = "echo header; echo /dev/disk 100000000 99000000 1048576 99% /"
    done = install_with(checkout, df=full, python3="exit 0")
    assert done.returncode == 2
    assert "has 1024 MB free and about 4 GB are needed" in done.stderr


def test_a_gpu_raises_the_disk_that_is_asked_for(checkout):
    space = "echo header; echo /dev/disk 100000000 99000000 8388608 99% /"
    done = install_with(checkout, df=space, python3="exit 0", **{"nvidia-smi": "exit 0"})
    assert "about 12 GB are needed" in done.stderr


def run_ci(
    checkout: Path, readme: str, tests: str = "exit 0", ruff: str = "exit 0"
) -> subprocess.CompletedProcess[str]:
    (checkout / "README.md").write_text(readme)
    (checkout / "scripts" / "test.sh").write_text(tests + "\n")
    python = write_program(checkout / "bin" / "python", f'echo "python $*"; {ruff}')
    write_program(checkout / "bin" / "chromedriver", "exit 0")
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    return run_bash("bash .ci/run", checkout, PYTHON=str(python), PATH=path)


README = """`bash scripts/test.sh` is prose
```bash
bash scripts/demo.sh
bash scripts/test.sh{}
```
"""


def test_ci_runs_the_readmes_own_test_commands_then_checks_form(checkout):
    readme = README.format(" -x\nbash scripts/test.sh -m 'two words'")
    done = run_ci(checkout, readme, tests='echo "tests got $# words: $*"')
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "+ bash scripts/test.sh -x",
        "tests got 1 words: -x",
        "+ bash scripts/test.sh -m 'two words'",
        "tests got 2 words: -m two words",
        "python -m ruff check .",
        "python -m ruff format --check .",
    ]


def test_ci_refuses_a_readme_without_the_command_in_a_fenced_block(checkout):
    done = run_ci(checkout, "Run `bash scripts/test.sh`.\nbash scripts/test.sh\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "README.md has no fenced line" in done.stderr


@pytest.mark.parametrize(("user", "installs"), [(0, True), (1000, False)])
def test_ci_goes_on_without_the_browser_that_it_cannot_install(checkout, user, installs):
    (checkout / "README.md").write_text(README.format(""))
    (checkout / "scripts" / "test.sh").write_text("echo tests\n")
    folder = checkout / "path"
    programs = {"id": f"echo {user}", "apt-get": "echo apt-get $* >&2; exit 5", "python": "exit 0"}
    for name, text in programs.items():
        write_program(folder / name, text)
    for name in ["bash", "dirname", "awk"]:
        (folder / name).symlink_to(shutil.which(name))
    done = run_bash("bash .ci/run", checkout, PATH=str(folder), PYTHON=str(folder / "python"))
    assert done.returncode == 0, done.stderr
    assert "tests" in done.stdout
    assert ("apt-get -qq update" in done.stderr) == installs
    assert ("Chromium could not be installed" in done.stderr) == installs


@pytest.mark.parametrize("failing", ["tests", "ruff"])
def test_ci_fails_when_either_part_fails_and_runs_both(checkout, failing):
    done = run_ci(checkout, README.format(""), **{failing: "exit 5"})
    assert done.returncode == 1
    assert done.stdout.count("python -m ruff") == 2


def pinned_versions() -> dict[str, str]:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(p.name): str(p.specifier).removeprefix("==") for p in pins}


def needed_packages() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(extras) == {"train", "eval", "serve", "dev"}
    lines = [*project["dependencies"], *(line for names in extras.values() for line in names)]
    return [Requirement(line) for line in lines]


def test_every_package_that_the_project_needs_is_pinned_within_its_range():
    versions = pinned_versions()
    for needed in needed_packages():
        assert needed.specifier.contains(versions[canonicalize_name(needed.name)]), needed


def needs_of(requirement: Requirement) -> list[Requirement]:
    """What an installed package asks for here, with the extras that `requirement` names."""
    needs = [Requirement(line) for line in requires(requirement.name) or []]
    extras = ["", *requirement.extras]
    return [
        n for n in needs if not n.marker or any(n.marker.evaluate({"extra": e}) for e in extras)
    ]


def test_what_the_needed_packages_need_is_pinned_too():
    cuda_library = re.compile(r"nvidia-.*|cuda-.*|triton")
    open_needs, seen = needed_packages(), set()
    while open_needs:
        need = open_needs.pop()
        key = canonicalize_name(need.name), frozenset(need.extras)
        if key in seen or cuda_library.fullmatch(key[0]):
            continue
        seen.add(key)
        open_needs += needs_of(need)
    assert {name for name, _ in seen} - set(pinned_versions()) == set()
    assert len(seen) > 100  # the walk went below the project's own list


def test_no_extra_brings_in_a_torchvision_of_its_own_choice():
    names = {needed.name for needed in needed_packages()}
    assert not names & {"torchvision", "timm", "lmms-eval"}
