"""Whatever is in a source file: a row that is right, a counted skip, or one line that says why.

Hypothesis makes files that are nearly right: broken JSON, wrong types, missing keys, NaN, odd
Unicode, huge texts, columns in another order or swapped, split names in every spelling. Each goes
through the command line of its collection.
"""

import contextlib
import csv
import gzip
import io
import json
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llava.data import chexpert_plus, iu_xray, mimic_cxr, table
from llava.data.entries import load_entries
from llava.data.phantom import raw_layout
from llava.data.splits import SPLITS
from llava.data.writer import split_path

FEW = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def often(strategy, rarely):
    """Mostly what belongs there, so that examples get past the first check."""
    return st.integers(0, 39).flatmap(lambda n: rarely if n == 39 else strategy)


ODD_TEXT = st.one_of(
    st.sampled_from(
        [
            *("<image>", "<|im_end|>", "a\0b", "\ud800", "\u202eabc", "e\u0301", "\ufeff", '"'),
            *("x" * 5000, "line\r\nbreak", "../../etc/passwd", "/etc/passwd", "../a.png"),
        ]
    ),
    st.text(max_size=12),
)
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_subnormal=False), ODD_TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
TEXT = often(
    st.sampled_from(
        [
            "The lungs are clear.",
            "Effusion, 5 cm.",
            "心影正常。",
            "a,b",
            "",
            " ",
            "None",
            "___",
            "XXXX.",
        ]
    ),
    ODD_TEXT,
)
IMAGE = often(st.integers(0, 30).map("p10/{}.png".format), ODD_TEXT)
SPLIT = often(
    st.sampled_from(
        ["train", "TRAIN", " Train ", "val", "validate", "Validation", "valid", "test"]
    ),
    st.sampled_from(["trian", "", "dev", "train/val"]),
)


def value(strategy):
    """A value of a JSON object: once in a while of another type."""
    return often(strategy, ANY)


def run(module, folder, *flags):
    """(exit status, what was written, what was printed); never a traceback."""
    output = Path(folder) / "out"
    (Path(folder) / "images" / "p10").mkdir(parents=True, exist_ok=True)
    given_flags = [f"--image-root={Path(folder) / 'images'}", f"--output={output}", *flags]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = module.main([*given_flags, "--no-image-check"])
    assert status in (0, 2), status
    assert status == 0 or err.getvalue().startswith("error: ")
    assert err.getvalue().count("\n") == (status == 2)
    assert not list(Path(folder).rglob("*.partial"))
    written = {split: split_path(output, split) for split in SPLITS}
    assert all(path.exists() == (status == 0) for path in written.values())
    samples = [
        (split, sample)
        for split, path in written.items()
        if status == 0
        for sample in json.loads(path.read_text(encoding="utf-8"))
    ]
    return status, samples, out.getvalue()


def check(status, samples, out, folder, entries=None):
    """The counts add up, and what was written can be trained on."""
    if status:
        return
    total = next(line for line in out.splitlines() if line.startswith("total "))
    listed, converted, skipped, images, kept, left = map(int, total.split()[1:])
    assert (listed, images) == (converted + skipped, kept + left)
    assert kept == len(samples)
    assert entries is None or listed == entries
    for split in SPLITS:
        path = split_path(Path(folder) / "out", split)
        if any(where == split for where, _ in samples):
            for entry in load_entries(path, Path(folder) / "images"):
                text = json.dumps(entry.messages)
                assert "<|" not in text
                assert text.count("<image>") == 1
                assert entry.messages[1]["value"].strip()


# --- MIMIC-CXR's annotation file ---

FIELDS = {
    "id": value(st.integers(0, 1000).map(str)),
    "report": value(TEXT),
    "image_path": value(st.one_of(IMAGE, st.lists(IMAGE, max_size=3))),
    "indication": value(TEXT),
    "History": value(TEXT),
    "clinical": value(st.fixed_dictionaries({}, optional={"comparison": TEXT})),
}
ENTRY = st.fixed_dictionaries({}, optional=FIELDS)
ANNOTATION = often(
    st.one_of(
        st.lists(
            value(st.fixed_dictionaries({"split": value(SPLIT)}, optional=FIELDS)), max_size=4
        ),
        st.dictionaries(SPLIT, value(st.lists(value(ENTRY), max_size=3)), max_size=3),
    ),
    ANY,
)


@FEW
@given(content=ANNOTATION, cut=often(st.none(), st.integers(0, 200)))
def test_any_annotation_file(content, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotation.json"
        path.write_text(json.dumps(content)[:cut], encoding="utf-8")
        check(*run(mimic_cxr, folder, f"--annotation={path}"), folder)


# --- tables ---


def write_csv(path, header, rows, order, damage):
    """Columns in another order, one of them renamed or doubled, or bytes that are no text."""
    order = [header[i] for i in order]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*order[:-1], "other"] if damage == "renamed" else order)
    writer.writerows([[row[name] for name in order] for row in rows])
    content = text.getvalue().encode("utf-8", errors="surrogatepass")
    if damage == "cut":
        content = content[: len(content) * 2 // 3]
    if damage == "gzip cut":
        content = gzip.compress(content)[:-9]
    if damage == "latin":
        content += "é".encode("latin-1")
    path.write_bytes(content)


def tables(unique=lambda row: id(row), **columns):
    """(rows, order of the columns, damage) of a CSV with these columns."""
    names = list(columns)
    return st.tuples(
        st.lists(st.fixed_dictionaries(columns), max_size=5, unique_by=unique),
        st.permutations(range(len(names))),
        often(st.none(), st.sampled_from(["renamed", "cut", "gzip cut", "latin"])),
    )


REPORTS = {
    "uid": often(st.integers(1, 9).map(str), st.just("1 ")),
    **dict.fromkeys(("indication", "comparison", "findings", "impression"), TEXT),
}
PROJECTIONS = {
    "uid": often(st.sampled_from(["1", "2", "3", "9"]), st.just("")),
    "filename": IMAGE,
    "projection": often(st.sampled_from(["Frontal", "lateral"]), ODD_TEXT),
}


@FEW
@given(
    reports=tables(lambda row: row["uid"], **REPORTS),
    projections=tables(**PROJECTIONS),
    swapped=st.booleans(),
)
def test_any_pair_of_open_i(reports, projections, swapped):
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("reports.csv", "projections.csv")]
        for path, columns, content in zip(
            paths, (REPORTS, PROJECTIONS), (reports, projections), strict=True
        ):
            write_csv(path, list(columns), *content)
        if swapped:
            paths.reverse()
        status, samples, out = run(
            iu_xray, folder, f"--reports={paths[0]}", f"--projections={paths[1]}"
        )
        assert status == 2 or not swapped
        entries = {row["uid"].strip() for rows, *_ in (reports, projections) for row in rows}
        whole = reports[2] is None and projections[2] is None
        check(status, samples, out, folder, len(entries) if whole else None)


PLUS = {
    "path_to_image": often(st.integers(1, 99).map("train/p/study{}/view1.jpg".format), ODD_TEXT),
    "frontal_lateral": often(st.sampled_from(["Frontal", "Lateral"]), ODD_TEXT),
    "deid_patient_id": often(st.just(""), st.just("p")),
    "split": SPLIT,
    **{
        f"section_{name}": TEXT
        for name in (
            *("findings", "impression", "comparison", "clinical_history", "history", "technique"),
        )
    },
}


@FEW
@given(content=tables(**PLUS))
def test_any_table_of_chexpert_plus(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plus.csv"
        write_csv(path, list(PLUS), *content)
        check(*run(chexpert_plus, folder, f"--csv={path}", "--section=both"), folder)


COLUMNS = ("--image-column=file", "--report-column=text", "--indication-column=why")


@FEW
@given(content=tables(file=IMAGE, text=TEXT, why=TEXT, where=SPLIT))
def test_any_csv(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        write_csv(path, ["file", "text", "why", "where"], *content)
        flags = (f"--table={path}", *COLUMNS, "--split-column=where")
        check(*run(table, folder, *flags), folder)


@FEW
@given(
    lines=st.lists(
        value(
            st.fixed_dictionaries(
                {"text": value(TEXT), "file": value(st.one_of(IMAGE, st.lists(IMAGE, max_size=2)))},
                optional={"why": value(TEXT)},
            )
        ),
        max_size=4,
    ),
    cut=often(st.none(), st.integers(0, 100)),
)
def test_any_jsonl(lines, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        path.write_text("\n".join(map(json.dumps, lines))[:cut], encoding="utf-8")
        check(*run(table, folder, f"--table={path}", *COLUMNS[:2]), folder)


# --- MIMIC-CXR's raw files ---


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


@FEW
@given(
    cells=st.lists(
        st.tuples(
            st.sampled_from([raw_layout.METADATA, raw_layout.SPLIT, raw_layout.CHEXPERT]),
            st.integers(0, 8),
            st.integers(0, 6),
            CELL,
        ),
        max_size=2,
    ),
    member=st.one_of(st.none(), st.tuples(MEMBER, st.one_of(TEXT, st.binary(max_size=20)))),
    cut=st.one_of(st.none(), st.none(), st.integers(0, 99)),
)
def test_any_raw_files(raw, cells, member, cut):
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
        check_build(folder)


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
    """Every study in or out, and nothing written but the annotation file."""
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


# --- what training reads ---

CONVERSATION = st.builds(
    lambda number, answer, changed: {
        "id": number,
        "image": f"p10/{number}.png",
        "conversations": [
            {"from": "human", "value": "<image> Describe."},
            {"from": "gpt", "value": answer},
        ],
        **changed,
    },
    st.integers(),
    often(st.just("Clear."), ODD_TEXT),
    often(
        st.just({}),
        st.fixed_dictionaries(
            {},
            optional={
                "id": ANY,
                "image": st.one_of(ANY, st.lists(IMAGE, max_size=2)),
                "conversations": st.one_of(
                    ANY, st.lists(st.fixed_dictionaries({"from": ANY, "value": ANY}), max_size=3)
                ),
            },
        ),
    ),
)
PART = st.fixed_dictionaries(
    {"json_path": value(st.just("data.json")), "image_folder": value(st.just("."))},
    optional={
        "sampling": value(st.sampled_from(["all", "first:50%", "random:1%", "weight:1.5", 2, 0.1]))
    },
)
MIXTURE = often(
    st.fixed_dictionaries(
        {"datasets": value(st.lists(value(PART), min_size=1, max_size=3))},
        optional={"seed": value(st.integers(0, 5))},
    ),
    st.one_of(ANY, st.fixed_dictionaries({"datasets": st.just([{"samplng": "all"}])})),
)


@FEW
@given(content=value(st.lists(value(CONVERSATION), max_size=3)), mixture=MIXTURE)
def test_any_conversations_and_any_mixture(content, mixture):
    with tempfile.TemporaryDirectory() as folder:
        path, yaml = Path(folder) / "data.json", Path(folder) / "mix.yaml"
        path.write_text(json.dumps(content), encoding="utf-8")
        yaml.write_text(json.dumps(mixture), encoding="utf-8")
        for given_path, image_folder in ((path, folder), (yaml, None)):
            entries, error = attempt(given_path, image_folder)
            assert entries or folder in error
            for entry in entries:
                questions = [m["value"] for m in entry.messages if m["from"] == "human"]
                assert sum(q.count("<image>") for q in questions) == len(entry.images)
                assert not any(".." in image for image in entry.images)


def attempt(path, image_folder):
    try:
        return load_entries(path, image_folder), ""
    except (ValueError, FileNotFoundError) as error:
        return [], str(error)
