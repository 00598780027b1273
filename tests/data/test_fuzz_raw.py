"""Whatever is in PhysioNet's zip and tables: every study in or out, no other file touched."""

import contextlib
import csv
import gzip
import io
import json
import tempfile
import zipfile
from pathlib import Path

import pytest
from fuzzing import FEW, TEXT, Outcomes, often
from hypothesis import given
from hypothesis import strategies as st

from llava.data.mimic_cxr import convert as mimic_cxr
from llava.phantom import raw_layout


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    raw_layout.write_raw(folder, 12)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


CELL = st.one_of(
    st.sampled_from(["", "train", "Validate", "10000000", "50000001", "1e7", "../x", "AP", "NaN"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
MEMBER = st.one_of(
    st.sampled_from(["../x.txt", "/x.txt", "files/p10/p10000000/s50000099.txt", "C:\\x", "p10/"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
)


CELLS = st.tuples(
    st.sampled_from([raw_layout.METADATA, raw_layout.SPLIT, raw_layout.CHEXPERT]),
    st.integers(0, 8),
    st.integers(0, 6),
    CELL,
)


def test_any_raw_files(raw):
    with Outcomes() as outcomes:

        @FEW
        @given(
            cells=st.lists(CELLS, max_size=2),
            member=st.one_of(st.none(), st.tuples(MEMBER, st.one_of(TEXT, st.binary(max_size=20)))),
            cut=often(st.none(), st.integers(0, 99)),
        )
        def build(cells, member, cut):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                for file, content in raw.items():
                    (folder / file).write_bytes(content)
                for file, row, column, cell in cells:
                    change_cell(folder / file, row, column, cell)
                if member:
                    add_member(folder / raw_layout.REPORTS, *member)
                if cut is not None:
                    content = (folder / raw_layout.REPORTS).read_bytes()
                    (folder / raw_layout.REPORTS).write_bytes(content[: cut * len(content) // 100])
                status = check_build(folder)
                outcomes.add(status)
                assert status == (2 if cut is not None else 0) or cells or member

        build()


def change_cell(path, row, column, cell):
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.reader(file))
    rows[row % len(rows)][column % len(rows[0])] = cell
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows(rows)


def add_member(path, name, content):
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, data)


def check_build(folder):
    """The exit status; every study in or out, and nothing written but the annotation file."""
    before = sorted(folder.rglob("*"))
    output = folder / "annotation.json"
    flags = [
        f"--{name}={folder / file}"
        for name, file in (
            ("reports", raw_layout.REPORTS),
            ("metadata", raw_layout.METADATA),
            ("split", raw_layout.SPLIT),
            ("chexpert", raw_layout.CHEXPERT),
        )
    ]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = mimic_cxr.main(["build", *flags, f"--output={output}"])
    assert status in (0, 2)
    assert err.getvalue().count("\n") == (status == 2)
    assert output.exists() == (status == 0)
    assert sorted(p for p in folder.rglob("*") if p != output) == before
    if status == 0:
        total = next(line for line in out.getvalue().splitlines() if line.startswith("total "))
        listed, converted, skipped, images, kept, left = map(int, total.split()[1:])
        assert (listed, images) == (converted + skipped, kept + left)
        content = json.loads(output.read_text(encoding="utf-8"))
        assert sum(len(entries) for entries in content.values()) == kept
    return status
