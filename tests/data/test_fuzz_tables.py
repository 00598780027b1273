"""Whatever is in a table of Open-i, CheXpert Plus or one's own: rows, counted skips, one line."""

import json
import tempfile
from pathlib import Path

from fuzzing import (
    FEW,
    IMAGE,
    ODD_TEXT,
    SPLIT,
    SPLITS_SPELT,
    TEXT,
    Outcomes,
    answers,
    check,
    often,
    regular,
    run,
    says,
    tables,
    value,
    write_csv,
)
from hypothesis import given
from hypothesis import strategies as st

from llava.data import chexpert_plus, iu_xray, table
from llava.data.conversion.cleaning import join_sections
from llava.data.conversion.splits import split_of

REPORTS = {
    "uid": often(st.integers(1, 3).map(str), st.just("1 ")),
    **dict.fromkeys(("indication", "comparison", "findings", "impression"), TEXT),
}
PROJECTIONS = {
    "uid": often(st.sampled_from(["1", "2", "3", "9"]), st.just("")),
    "filename": IMAGE,
    "projection": often(st.sampled_from(["Frontal", "Frontal", "lateral"]), ODD_TEXT),
}


def test_any_pair_of_open_i():
    with Outcomes() as outcomes:

        @FEW
        @given(
            reports=tables(lambda row: row["uid"], **REPORTS),
            projections=tables(lambda row: row["filename"], **PROJECTIONS),
            swapped=often(st.just(False), st.just(True)),
        )
        def convert(reports, projections, swapped):
            with tempfile.TemporaryDirectory() as folder:
                paths = [Path(folder) / name for name in ("reports.csv", "projections.csv")]
                write_csv(paths[0], list(REPORTS), *reports)
                write_csv(paths[1], list(PROJECTIONS), *projections)
                if swapped:
                    paths.reverse()
                flags = (f"--reports={paths[0]}", f"--projections={paths[1]}")
                status, samples, out = run(iu_xray, folder, *flags)
                outcomes.add(status)
                assert status == 2 or not swapped
                uids = {row["uid"].strip() for rows, *_ in (reports, projections) for row in rows}
                whole = reports[2] is None and projections[2] is None
                check(status, samples, out, folder, len(uids) if whole else None)
                wanted = expected_open_i(reports[0], projections[0])
                if whole and not swapped and wanted is not None:
                    assert status == (0 if wanted else 2)
                    assert answers(samples) == wanted

        convert()


def expected_open_i(reports, projections):
    """(split, image) -> findings; None where something odd was drawn."""
    texts = [text for row in reports for name, text in row.items() if name != "uid"]
    names = [row["uid"] for row in [*reports, *projections]]
    views = [row["projection"].lower() for row in projections]
    if not regular(*texts) or not all(name.isdecimal() for name in names):
        return None
    if not all(regular(image=row["filename"]) for row in projections):
        return None
    if not set(views) <= {"frontal", "lateral"}:
        return None
    findings = {row["uid"]: says(row["findings"]) for row in reports}
    return {
        (split_of(row["uid"], 0), row["filename"]): findings[row["uid"]]
        for row, view in zip(projections, views, strict=True)
        if view == "frontal" and findings.get(row["uid"])
    }


TEXTS = [
    f"section_{name}"
    for name in (
        *("findings", "impression", "comparison", "clinical_history", "history", "technique"),
    )
]
PLUS = {
    "path_to_image": often(st.integers(1, 99).map("train/p/study{}/view1.jpg".format), ODD_TEXT),
    "frontal_lateral": often(st.sampled_from(["Frontal", "Lateral"]), ODD_TEXT),
    "deid_patient_id": often(st.just(""), st.just("p")),
    "split": SPLIT,
    **dict.fromkeys(TEXTS, TEXT),
}


def test_any_table_of_chexpert_plus():
    with Outcomes() as outcomes:

        @FEW
        @given(content=tables(lambda row: row["path_to_image"], **PLUS))
        def convert(content):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "plus.csv"
                write_csv(path, list(PLUS), *content)
                flags = (f"--csv={path}", "--section=both", "--view=all")
                status, samples, out = run(chexpert_plus, folder, *flags)
                outcomes.add(status)
                check(status, samples, out, folder)
                wanted = expected_plus(content[0])
                if content[2] is None and wanted is not None:
                    assert status == (0 if wanted else 2)
                    assert answers(samples) == wanted

        convert()


def expected_plus(rows):
    """(split, image) -> both sections; None where something odd was drawn."""
    found = {}
    for row in rows:
        view = row["frontal_lateral"] in ("Frontal", "Lateral")
        image = row["path_to_image"]
        if not regular(*(row[name] for name in TEXTS), split=row["split"]) or not view:
            return None
        if not image.startswith("train/p/study") or row["deid_patient_id"]:
            return None
        sections = (says(row[name]) for name in ("section_findings", "section_impression"))
        if report := join_sections(sections):
            found[SPLITS_SPELT[row["split"]], image] = report
    return found


COLUMNS = ("--image-column=file", "--report-column=text", "--indication-column=why")


def test_any_csv():
    with Outcomes() as outcomes:

        @FEW
        @given(
            content=tables(lambda row: row["file"], file=IMAGE, text=TEXT, why=TEXT, where=SPLIT)
        )
        def convert(content):
            rows, _, damage = content
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "t.csv"
                write_csv(path, ["file", "text", "why", "where"], *content)
                flags = (f"--table={path}", *COLUMNS, "--split-column=where")
                status, samples, out = run(table, folder, *flags)
                outcomes.add(status)
                check(status, samples, out, folder)
                odd = not all(
                    regular(row["text"], row["why"], image=row["file"], split=row["where"])
                    for row in rows
                )
                if damage is None and not odd:
                    wanted = {
                        (SPLITS_SPELT[row["where"]], row["file"]): says(row["text"])
                        for row in rows
                        if says(row["text"])
                    }
                    assert status == (0 if wanted else 2)
                    assert answers(samples) == wanted

        convert()


LINE = st.fixed_dictionaries(
    {"text": value(TEXT), "file": value(st.one_of(IMAGE, st.lists(IMAGE, max_size=2)))},
    optional={"why": value(TEXT)},
)


def test_any_jsonl():
    with Outcomes() as outcomes:

        @FEW
        @given(lines=st.lists(value(LINE), max_size=4), cut=often(st.none(), st.integers(0, 100)))
        def convert(lines, cut):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "t.jsonl"
                path.write_text("\n".join(map(json.dumps, lines))[:cut], encoding="utf-8")
                status, samples, out = run(table, folder, f"--table={path}", *COLUMNS[:2])
                outcomes.add(status)
                check(status, samples, out, folder)
                wanted = expected_lines(lines)
                if cut is None and wanted is not None:
                    images = [image for image, _ in wanted]
                    repeated = len(set(images)) < len(images)
                    assert status == 0 or repeated or not wanted
                    found = {image: report for (_, image), report in answers(samples).items()}
                    assert status == 2 or found == dict(wanted)

        convert()


def expected_lines(lines):
    """[(image, report)]; None where something odd was drawn."""
    found = []
    for line in lines:
        if not isinstance(line, dict) or not isinstance(line.get("text"), str):
            return None
        images = [line["file"]] if isinstance(line["file"], str) else line["file"]
        if not isinstance(images, list) or not regular(line["text"]):
            return None
        if not all(isinstance(image, str) and regular(image=image) for image in images):
            return None
        found += [(image, says(line["text"])) for image in images if says(line["text"])]
    return found
