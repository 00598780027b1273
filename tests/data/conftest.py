"""Fixtures for the conversion of MIMIC-CXR's annotation file."""

import json
from pathlib import Path

import pytest

from llava.data.mimic_cxr.convert import main

FILES = [f"{split}_llave_llada.json" for split in ("train", "val", "test")]


@pytest.fixture
def images(tmp_path) -> Path:
    """An image root with a1.jpg ... a4.jpg; the conversion looks for files, never into them."""
    folder = tmp_path / "images" / "p10" / "s5"
    folder.mkdir(parents=True)
    for number in range(1, 5):
        (folder / f"a{number}.jpg").touch()
    return tmp_path / "images"


@pytest.fixture
def convert_annotation(tmp_path, images, capsys):
    """Runs the command line on `content`: (exit status, written files by split, stdout, stderr)."""

    def convert_annotation(content, *flags, root=images):
        annotation = tmp_path / "annotation.json"
        text = content if isinstance(content, str) else json.dumps(content)
        annotation.write_text(text, encoding="utf-8")
        output = tmp_path / "out"
        status = main(
            [f"--annotation={annotation}", f"--image-root={root}", f"--output={output}", *flags]
        )
        written = {
            name.split("_")[0]: json.loads((output / name).read_text(encoding="utf-8"))
            for name in FILES
            if (output / name).exists()
        }
        out, err = capsys.readouterr()
        return status, written, out, err

    return convert_annotation
