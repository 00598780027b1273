"""The labeler against the human tags of the Open-i reports (bench/labeler.py); needs ../shared."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "labeler.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_labeler", BENCH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def reports(bench, shared):
    path = shared / "data" / "iu_xray" / "indiana_reports.csv"
    if not path.is_file():
        pytest.skip("no Open-i reports in ../shared")
    return bench.read_reports(path)


def test_the_held_out_third_reaches_its_goal_and_beats_keywords(bench, reports):
    held_out = [report for report in reports if report.held_out]
    assert 0.3 < len(held_out) / len(reports) < 0.37
    rules = bench.micro(bench.counts_of(held_out, bench.by_rules("as_negative")))
    keywords = bench.micro(bench.counts_of(held_out, bench.by_keywords))
    assert rules >= 0.94
    assert rules > keywords + 0.1


def test_every_error_was_read_and_classed(bench, reports):
    classed = bench.classes_of(reports, bench.by_rules("as_negative"))
    counted = {name for counts in classed.values() for name in counts}
    assert counted == set(bench.CLASSES) - {"unread"}
    assert all(
        "No Finding" in name or sum(counts.values()) < 30 for name, counts in classed.items()
    )


def test_micro_f1_pools_the_counts(bench):
    reports = [
        bench.Report("1", "Cardiomegaly.", frozenset({"Cardiomegaly", "Edema"})),
        bench.Report("2", "No edema.", frozenset({"No Finding"})),
    ]
    counts = bench.counts_of(reports, bench.by_rules("as_negative"))
    assert bench.micro(counts) == pytest.approx(2 * 2 / (3 + 2))
    errors = list(bench.errors_of(reports, bench.by_rules("as_negative")))
    assert errors == [bench.Error("1", "Edema", "missed")]
