"""Reports that another model wrote: every format is scored, and what does not match is listed."""

import csv
import json
import re
from pathlib import Path

import pytest

from llava.eval.nlg import java
from llava.eval.others.reports import Names, read_reports
from llava.eval.predictions import read_predictions
from llava.eval.score import main
from llava.writing.records import PredictionError

pytest.importorskip("pycocoevalcap", reason="the report metrics need the extra `eval`")

GOLD = {"s1": "The heart is enlarged.", "s2": "Clear lungs.\u2028No effusion.", "s3": "Edema."}
SAID = {"s1": "Cardiomegaly, mild.", "s2": "Lungs are clear.", "s3": ""}


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: None)


def lines(path: Path, rows: list[dict], bom: bool = False) -> Path:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(content, encoding="utf-8-sig" if bom else "utf-8")
    return path


def table(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
            [columns, *rows]
        )
    return path


def rows(*names: str) -> list[dict]:
    key, said, gold = names
    return [{key: name, said: SAID[name], gold: GOLD[name]} for name in GOLD]


def rexrank(path: Path) -> Path:
    studies = {
        name: {
            "model_prediction": SAID[name],
            "section_findings": GOLD[name],
            "section_impression": "" if name == "s3" else "Normal.",
            "context": "Age:50-60.Gender:M.Indication: cough. Comparison: none.",
            "image_path": [f"/p10/{name}.jpg"],
        }
        for name in GOLD
    }
    path.write_text(json.dumps(studies))
    return path


def pairs(tmp_path: Path) -> dict[str, tuple]:
    """Every format of the documentation, with the same three reports."""
    cells = [(name, SAID[name], GOLD[name]) for name in GOLD]
    return {
        "own": (lines(tmp_path / "predictions.jsonl", rows("id", "prediction", "reference")),),
        "hyp": (lines(tmp_path / "hyp.jsonl", rows("id", "hyp", "ref"), bom=True),),
        "list": (_json(tmp_path / "list.json", rows("study_id", "candidate", "ground_truth")),),
        "csv": (table(tmp_path / "x.csv", ("study_id", "generated", "reference"), cells),),
        "tsv": (table(tmp_path / "x.tsv", ("study_id", "generated", "reference"), cells),),
        "two": (
            table(tmp_path / "p.csv", ("study_id", "report"), list(SAID.items())),
            table(tmp_path / "g.csv", ("study_id", "report"), list(GOLD.items())[::-1]),
        ),
        "conversations": (
            lines(tmp_path / "p.jsonl", [{"id": n, "prediction": t} for n, t in SAID.items()]),
            _json(
                tmp_path / "data.json",
                [
                    {"id": n, "conversations": [{"value": "?"}, {"value": t}]}
                    for n, t in GOLD.items()
                ],
            ),
        ),
    }


def _json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_every_format_gives_the_same_reports(tmp_path):
    for name, files in pairs(tmp_path).items():
        found, _ = read_reports(*files)
        read = {report.id: (report.prediction, report.reference) for report in found}
        assert read == {key: (SAID[key], GOLD[key]) for key in GOLD}, name


def test_a_rexrank_file_has_the_leaderboards_reference_context_and_images(tmp_path):
    path = rexrank(tmp_path / "r.json")
    found, kind = read_reports(path, image_folder=str(tmp_path))
    assert kind == "JSON keyed by study"
    assert found[0].reference == f"Findings: {GOLD['s1']} Impression: Normal."
    assert found[2].reference == f"Findings: {GOLD['s3']} Impression: None"
    assert (found[0].images, found[0].image_folder) == (("p10/s1.jpg",), str(tmp_path))
    assert "Comparison: none" in found[0].context
    findings, _ = read_reports(path, section="findings")
    assert [report.reference for report in findings] == list(GOLD.values())
    with pytest.raises(PredictionError, match="1 ids lack a reference: 's3'"):
        read_reports(path, section="impression")


def test_the_command_writes_table_results_page_and_csvs(tmp_path, capsys):
    path = lines(tmp_path / "other model.jsonl", rows("id", "hyp", "ref"))
    assert main([str(path), "--csv"]) == 0
    output = tmp_path / "other model_scored"
    results = json.loads((output / "results.json").read_text())
    assert (results["n"], results["n_empty"]) == (3, 1)
    assert set(results["metrics"]) == {"raw", "r2gen", "r2gen-cut", "rexrank"}
    assert results["protocol"]["reports"]["n"] == 3
    assert results["health"]["distinct"] == 1.0
    printed = capsys.readouterr().out
    for row in ("as_positive/example_14/f1", "rexrank/BLEU-2", "health/near_duplicates"):
        assert row in printed
    assert [p.id for p in read_predictions(output)] == list(GOLD)
    assert "3 reports</title>" in (output / "report.html").read_text(encoding="utf-8")
    with (output / "references.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["study_id"], row["report"]) for row in csv.DictReader(file)] == [
            (str(place), text) for place, text in enumerate(GOLD.values(), start=1)
        ]
    # The same again is the same; other reports into that folder are refused.
    assert main([str(path), "--csv"]) == 0
    lines(path, rows("id", "hyp", "ref")[:2])
    assert main([str(path)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_equal_reports_are_warned_about(tmp_path, capsys):
    same = [{"id": str(i), "hyp": "No finding.", "ref": f"Finding {i}."} for i in range(30)]
    path = lines(tmp_path / "x.jsonl", same)
    assert main([str(path)]) == 0
    assert "all 30 reports are identical" in capsys.readouterr().out
    page = (tmp_path / "x_scored/report.html").read_text(encoding="utf-8")
    assert "all 30 reports are identical" in page


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        ([{"id": "a", "hyp": "x"}], Names(), "no field for the reference"),
        ([{"id": "a", "report": "x", "ref": "y"}], Names(), "--prediction-column"),
        ([{"id": "a", "hyp": "x", "prediction": "z", "ref": "y"}], Names(), "several fields"),
        ([{"id": "a", "hyp": "x", "ref": "y"}], Names(prediction="hypp"), "did you mean 'hyp'"),
        ([{"id": "a", "hyp": None, "ref": "y"}], Names(), "1 ids lack a prediction: 'a'"),
        ([{"id": "a", "hyp": "x", "ref": float("nan")}], Names(), "lack a reference: 'a'"),
        ([{"id": "a", "hyp": 3, "ref": "y"}], Names(), "field 'hyp' is 3; it must be text"),
        ([{"id": None, "hyp": "x", "ref": "y"}], Names(), "--id-column"),
        ([{"id": "a", "hyp": "x", "ref": "y"}] * 2, Names(), "more than once: 'a'"),
        ([["a", "x", "y"]], Names(), "must be an object"),
    ],
)
def test_what_cannot_be_scored_is_named(tmp_path, content, names, message):
    path = _json(tmp_path / "x.json", content)
    with pytest.raises(PredictionError, match=message):
        read_reports(path, names=names)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tokens", "The lungs", "tokens is 'The lungs'; it must be a list"),
        ("confidence", 0.9, "confidence is 0.9; it must be a list"),
        ("decided_at", [0, -1], "has -1 among its decided_at"),
        ("tokens", ["x"], "has 1 tokens, 0 confidence, 0 decided_at"),
        ("ended", "yes", "ended is 'yes'; it must be true or false"),
        ("nfe", 1.5, "nfe is 1.5; it must be a count"),
        ("context", 3, "context is 3; it must be text"),
        ("images", {"a": 1}, "images is {'a': 1}; it must be a list"),
        ("images", [3], "has 3 among its images"),
        ("image_folder", 7, "image_folder is 7; it must be text"),
        ("study_id", True, "study_id is True; it must be text or a number"),
    ],
)
def test_an_optional_field_of_another_kind_is_refused_with_its_place(
    tmp_path, field, value, message
):
    row = {"id": "a", "prediction": "x", "reference": "y", "decided_at": []}
    path = lines(tmp_path / "x.jsonl", [row, {**row, "id": "b", field: value}])
    with pytest.raises(PredictionError, match=re.escape(f"{path}, row 2")) as refused:
        read_reports(path)
    assert message in str(refused.value)
    assert "remove it from the file" in str(refused.value)


def test_fields_of_our_own_mean_nothing_in_a_file_of_another_origin(tmp_path):
    said = table(tmp_path / "p.csv", ("id", "hyp", "ref", "confidence"), [("a", "x", "y", "0.9")])
    found, _ = read_reports(said)
    assert (found[0].prediction, found[0].confidence) == ("x", ())
    row = {"id": "a", "hyp": "x", "ref": "y", "tokens": 412, "ended": "yes"}
    found, _ = read_reports(_json(tmp_path / "x.json", [row]))
    assert (found[0].tokens, found[0].ended) == ((), True)


def test_an_optional_field_without_a_value_is_absent(tmp_path):
    row = {"id": "a", "prediction": "x", "reference": "y"}
    fields = ("tokens", "confidence", "ended", "nfe", "context", "images", "study_id")
    path = lines(
        tmp_path / "x.jsonl",
        [
            {**row, "id": str(index), **dict.fromkeys(fields, value)}
            for index, value in enumerate((None, float("nan"), ""))
        ],
    )
    found, _ = read_reports(path)
    assert [report.study_id for report in found] == ["0", "1", "2"]
    assert {(report.tokens, report.ended, report.images, report.context) for report in found} == {
        ((), True, (), "")
    }


def test_reports_and_references_that_do_not_match_up_are_listed(tmp_path):
    said = table(tmp_path / "p.csv", ("id", "report"), [("a", "x"), ("b", "y")])
    gold = table(tmp_path / "g.csv", ("id", "report"), [("b", "y"), ("c", "z")])
    with pytest.raises(PredictionError) as refused:
        read_reports(said, gold)
    assert "1 ids have a prediction but no reference: 'a'" in str(refused.value)
    assert "1 ids have a reference but no prediction: 'c'" in str(refused.value)
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("id,hyp,ref\na,one, two,three\n")
    with pytest.raises(PredictionError, match="line 2: 4 cells under 3 columns"):
        read_reports(ragged)
    assert main([str(tmp_path / "none.csv")]) == 2


def test_reports_without_ids_are_numbered(tmp_path):
    path = _json(tmp_path / "x.json", [{"hyp": "x", "ref": "y"}, {"hyp": "z", "ref": "y"}])
    assert [report.id for report in read_reports(path)[0]] == ["1", "2"]
