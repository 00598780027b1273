"""The checker on reports that others wrote, in their own words."""

import json
from pathlib import Path

import pytest

from llava.phantom.findings import findings_in, micro_f1

FILES = sorted((Path(__file__).parent / "paraphrases").glob("*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_findings_are_read_from_paraphrases(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 100
    stated = [frozenset(row["findings"]) for row in rows]
    assert micro_f1(stated, [findings_in(row["text"]) for row in rows]) >= 0.98
