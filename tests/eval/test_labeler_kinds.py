"""Layout, signs and wording around a finding do not change what the labeler reads."""

import re
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.labeler import FINDINGS, label_report

SETS = Path(__file__).parent / "paraphrases"
CODES = ("ECM", "CM", "LO", "LL", "ED", "CO", "PN", "AT", "PTX", "PE", "PO", "FX", "SD", "NF")
SHORT = dict(zip(CODES, FINDINGS, strict=True))
ESCAPES = {"n": "\n", "r": "\r", "\\": "\\"}


def read_set(path: Path) -> list[tuple[str, str, dict[str, int | None]]]:
    """(kind, sentence, labels) of each line; sentences have their escapes decoded."""
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n")[1:-1]:
        *kind, sentence, labels = line.split("\t")
        sentence = re.sub(
            r"\\(u[0-9a-f]{4}|[nr\\])",
            lambda m: ESCAPES.get(m[1]) or chr(int(m[1][1:], 16)),
            sentence,
        )
        pairs = (pair.split("=") for pair in labels.split())
        wanted = {SHORT[name]: None if value == "None" else int(value) for name, value in pairs}
        rows.append((*kind, sentence, wanted))
    return rows


def misread(rows: list) -> list:
    return [row for row in rows if not row[-1].items() <= label_report(row[-2]).items()]


@pytest.mark.parametrize("path", sorted(SETS.glob("kinds*.tsv")), ids=lambda path: path.stem)
def test_at_least_95_percent_of_the_sentences_are_read_right(path):
    rows = read_set(path)
    wrong = misread(rows)
    assert len(wrong) <= 0.05 * len(rows), wrong


def test_no_kind_of_sentence_is_misread_but_the_one_without_any_mark():
    rows = [row for path in SETS.glob("kinds*.tsv") for row in read_set(path)]
    total, wrong = (Counter(kind for kind, *_ in some) for some in (rows, misread(rows)))
    assert {kind for kind in total if wrong[kind] > 0.1 * total[kind]} == {"none"}


def test_at_least_95_percent_of_the_reference_sentences_are_read_right(shared):
    path = shared / "cases" / "text" / "labels.tsv"
    if not path.is_file():
        pytest.skip("no labelled sentences in ../shared")
    rows = read_set(path)
    wrong = misread(rows)
    assert len(wrong) <= 0.05 * len(rows), wrong


REPORT = (
    "Heart size is normal",
    "No pneumothorax or focal consolidation",
    "Small left pleural effusion, unchanged",
    "No acute rib fracture",
    "Mild bibasilar atelectasis may be present",
    "Lungs are without edema, well-inflated",
    "PICC ends in the SVC",
    "No nodule",
)
LAYOUTS = {
    "lines": "\n".join(REPORT),
    "lower-case lines": "\n".join(REPORT).lower(),
    "blank lines": "\n\n".join(REPORT),
    "spreadsheet lines": "_x000D_\n".join(REPORT),
    "line separators": "\u2028".join(REPORT),
    "escaped lines": "\\n".join(REPORT),
    "web lines": "<br>".join(REPORT),
    "web list": "".join(f"<li>{item}</li>" for item in REPORT),
    "hyphen list": "\n".join(f"- {item}" for item in REPORT),
    "hyphens in a line": " - ".join(REPORT),
    "lower-case dashes": " \u2013 ".join(REPORT).lower(),
    "dashes": "\u2014".join(REPORT),
    "bars": " | ".join(REPORT),
    "bullets": " \u2022 ".join(REPORT),
    "numbered lines": "\n".join(f"{n}. {item}" for n, item in enumerate(REPORT, 1)),
    "numbers in a line": " ".join(f"{n}) {item}" for n, item in enumerate(REPORT, 1)),
    "semicolons": "; ".join(REPORT),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_report_has_the_same_labels_in_every_layout(layout):
    assert label_report(LAYOUTS[layout]) == label_report(". ".join(REPORT))


@given(st.integers(45, 120), st.permutations(REPORT), st.sampled_from(["\n", "\r\n", "\n  "]))
def test_a_report_has_the_same_labels_wherever_its_lines_wrap(width, report, line_end):
    text = ". ".join(report) + "."
    wrapped = textwrap.fill(text, width).replace("\n", line_end)
    assert label_report(wrapped) == label_report(text)


@pytest.mark.parametrize(
    "text",
    [
        "No right - sided effusion or pneumothorax.",
        "No non - displaced fracture or post - operative pneumothorax.",
        "No air - space consolidation, pleural effusion or pneumothorax.",
        "No mild/moderate effusion.",
        "No right- sided or left -sided effusion or pneumothorax.",
        "No air- space consolidation or post -operative pneumothorax.",
        "No left upper lobe, right lower lobe consolidation.",
        "No large (or small) effusion or pneumothorax.",
        "No pneumothorax (previously large).",
        "No mid- or lower-lung consolidation.",
        "No nodule > 5 mm or effusion.",
    ],
)
def test_a_hyphen_or_a_bracket_within_a_denial_does_not_end_it(text):
    assert 1 not in {label_report(text)[name] for name in FINDINGS[:-1]}
