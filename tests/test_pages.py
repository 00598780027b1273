"""The command lines of the README and the documents: programs, options and variables exist."""

import contextlib
import io
import re
import runpy
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data/README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
OTHERS = {
    "hf",
    "pip",
    "sbatch",
    "srun",
    "pytest",
    "source",
    "apt",
    "conda",
    "curl",
    "diff",
    "cat",
    "ls",
}
"""Programs that are not this project's."""
ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=")


def commands(page: Path) -> list[str]:
    """The command lines of the fenced bash blocks of a page, continuation lines joined."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = (re.split(r"\s#\s|^#", line.strip())[0].strip() for line in joined.splitlines())
    return [part.strip() for line in lines if line for part in line.split("&&")]


@cache
def help_of(name: str, *words: str) -> str:
    """What `--help` prints, in this process. name: a module, or the path of a script."""
    printed = io.StringIO()
    run = runpy.run_path if name.endswith(".py") else runpy.run_module
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [name, *words, "--help"])
        patch.setenv("COLUMNS", "200")
        patch.chdir(ROOT)
        patch.syspath_prepend(str((ROOT / name).parent if name.endswith(".py") else ROOT))
        if not hasattr(sys.modules.get(name), "__path__"):
            # A module that another test has imported is not the one that a command starts.
            patch.delitem(sys.modules, name, raising=False)
        with pytest.raises(SystemExit) as stop:
            run(name, run_name="__main__")
    assert not stop.value.code, name
    return printed.getvalue()


@cache
def script_text(script: Path) -> str:
    """A script with those that it sources or runs."""
    text = script.read_text(encoding="utf-8")
    for name in re.findall(r"[\w./-]+\.sh", text):
        for other in ROOT.glob(f"*/{Path(name).name}"), ROOT.glob(f"*/scripts/{Path(name).name}"):
            text += "".join(p.read_text(encoding="utf-8") for p in other if p != script)
    return text


def check(command: str, folder: Path) -> None:
    words = shlex.split(command)
    variables = []
    while words and ASSIGNMENT.match(words[0]):
        variables.append(ASSIGNMENT.match(words.pop(0))[1])
    program, *rest = words
    if program == "torchrun":
        rest = rest[rest.index("-m") :]
        program = "python"
    if Path(program).name in OTHERS:
        return
    options = [word.split("=")[0] for word in rest if word.startswith("--")]
    if program == "bash":
        places = [folder / rest[0], ROOT / "train" / rest[0], ROOT / "eval" / rest[0]]
        script = next((place for place in places if place.is_file()), None)
        assert script is not None, f"{command}: there is no such script"
        text = script_text(script)
        for name in variables:
            assert re.search(rf"\b{name}\b", text), f"{command}: {script.name} knows no {name}"
        return
    assert program.endswith(("python", "pytest", "ruff")), f"{command}: what is {program}?"
    if rest[0] == "-m":
        rest = rest[1:]
        if not rest[0].startswith(("llava", "bench")):
            return
        module = [rest[0], *(word for word in rest[1:2] if word == "build")]
    else:
        assert (ROOT / rest[0]).is_file(), f"{command}: there is no {rest[0]}"
        module = [rest[0]]
    known = help_of(*module)
    for option in options:
        assert re.search(rf"{option}\b", known), f"{command}: --help does not know {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_of_a_page_can_be_given(page):
    folder = ROOT
    for command in commands(page):
        if command.startswith("cd "):
            folder = ROOT / command.split()[1]
            assert folder.is_dir(), command
            continue
        check(command, folder)
        folder = ROOT
