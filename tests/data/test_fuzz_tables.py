"""Whatever is in a table of Open-i, CheXpert Plus or one's own: rows, counted skips, one line."""

import json
import tempfile
from pathlib import Path

from fuzzing import FEW, IMAGE, ODD_TEXT, SPLIT, TEXT, check, often, run, tables, value, write_csv
from hypothesis import given
from hypothesis import strategies as st

from llava.data import chexpert_plus, iu_xray, table

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
