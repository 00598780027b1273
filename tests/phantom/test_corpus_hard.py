"""The hard corpus: fainter, fuller, in more words, and the usual one is left as it was."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from llava.phantom import Finding, sample_findings
from llava.phantom.corpus import ANNOTATION, SETTINGS, CorpusConfig, CorpusError, write_corpus
from llava.phantom.difficulty import EASY, HARD
from llava.phantom.findings import findings_in
from llava.phantom.language import MAX_WORDS, write_report
from llava.phantom.lesions import render


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def cases() -> list[tuple[Finding, ...]]:
    return [sample_findings(rng(1, i), HARD) for i in range(1500)]


def test_the_usual_corpus_is_what_it_was_before_there_was_a_hard_one(tmp_path):
    write_corpus(tmp_path / "c", CorpusConfig(train=34, val=3, test=5, size=64), workers=1)
    digest = hashlib.sha256((tmp_path / "c" / ANNOTATION).read_bytes()).hexdigest()
    assert digest == "4cd74c91180a42dcf12405e8d6ae0ede54fed21727745b32510f538c81503de9"
    assert "difficulty" not in json.loads((tmp_path / "c" / SETTINGS).read_text())


def test_the_folder_says_that_it_is_hard_and_its_pictures_are_others(tmp_path):
    pictures = {}
    for name in ("easy", "hard"):
        write_corpus(tmp_path / name, CorpusConfig(1, 0, 0, 64, difficulty=name), workers=1)
        pictures[name] = next((tmp_path / name).rglob("*.jpg")).read_bytes()
    assert json.loads((tmp_path / "hard" / SETTINGS).read_text())["difficulty"] == "hard"
    assert pictures["easy"] != pictures["hard"]


def test_cases_are_fuller_and_findings_unevenly_frequent(cases):
    counts = Counter(finding.name for case in cases for finding in case)
    abnormal = [len(case) for case in cases if case[0].name != "normal"]
    usual = sum(share * (i + 1) for i, share in enumerate(EASY.counts))
    assert np.mean(abnormal) > usual + 0.3
    assert counts["cardiomegaly"] > 2.5 * counts["left_pneumothorax"] > 0
    assert counts["normal"] < 0.14 * len(cases)


def test_every_report_states_exactly_what_is_drawn_in_more_phrasings(cases):
    reports = [write_report(case, False, rng(2, i), HARD) for i, case in enumerate(cases)]
    for case, report in zip(cases, reports, strict=True):
        assert findings_in(report) == {finding.name for finding in case}, report
        assert len(report.split()) <= MAX_WORDS + 4
    usual = [write_report(case, False, rng(2, i)) for i, case in enumerate(cases)]
    kinds = [len({s for report in side for s in report.split(". ")}) for side in (reports, usual)]
    assert kinds[0] > 1.2 * kinds[1]


@pytest.mark.parametrize(
    "finding",
    [
        Finding("left_effusion", "left", "large"),
        Finding("right_consolidation", "right", zone="mid"),
        Finding("edema", size="severe"),
        Finding("nodule", "left", zone="upper"),
    ],
    ids=lambda finding: finding.name,
)
def test_a_finding_shows_less_than_in_full_contrast_and_more_than_not_at_all(finding):
    def picture(low: float, high: float) -> np.ndarray:
        """One draw of the lot whatever the contrast, so that nothing else differs."""
        difficulty = replace(HARD, contrast=(low, high), grain=0.0)
        return np.asarray(render((finding,), 64, rng(3), difficulty), dtype=float)

    hidden, shown = picture(0.0, 0.0), picture(1.0, 1.0)
    part = np.abs(picture(*HARD.contrast) - hidden).mean() / np.abs(shown - hidden).mean()
    assert 0.3 < part < 0.9


def test_an_unknown_difficulty_is_named():
    with pytest.raises(CorpusError, match="difficulty='harder' is unknown; choose from easy, hard"):
        CorpusConfig(difficulty="harder")
