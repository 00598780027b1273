"""The figures of the training benchmark: read off at 28 layers, ratios in pairs, straight lines."""

from pathlib import Path

import pytest

BENCH = str(Path(__file__).resolve().parents[2] / "bench")


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import train_step_table

    return train_step_table


def side(seconds):
    return {"seconds": seconds, "processor_seconds": seconds}


CASE = {
    "2": [{"recipe": side(6.0), "prefix": side(1.0)}, {"recipe": side(8.0), "prefix": side(2.0)}],
    "6": [{"recipe": side(8.0), "prefix": side(2.0)}, {"recipe": side(8.0), "prefix": side(2.0)}],
}


def test_a_figure_is_read_off_at_28_layers_on_the_line_through_both_depths(table):
    assert table.read_off(CASE, "recipe", "seconds") == [6 + 26 * 0.5, 8.0]
    assert table.read_off(CASE, "prefix", "seconds") == [1 + 26 * 0.25, 2.0]


def test_a_figure_measured_at_28_layers_is_taken_as_it_is(table):
    case = CASE | {"28": [{"recipe": side(30.0), "prefix": side(10.0)}]}
    assert table.read_off(case, "recipe", "seconds") == [30.0]
    assert not table.reaches({"2": CASE["2"]})


def test_ratios_are_of_pairs_and_the_spread_is_shown(table):
    ratios = table.ratios(CASE, "prefix", "recipe", "seconds")
    assert ratios == [pytest.approx(19 / 7.5), 4.0]
    assert table.spread(ratios) == "3.27 (2.53 to 4.00)"


def test_the_recipe_is_compared_at_the_same_pages_and_with_its_own_small_ones(table):
    found = table.comparisons(["recipe", "recipe@small", "full", "prefix@small", "prefix"])
    assert ("recipe", "prefix") in found
    assert ("recipe@small", "prefix@small") in found
    assert ("recipe@small", "prefix") in found
    assert ("recipe", "prefix@small") not in found
    assert table.comparisons(["prefix:2", "prefix:4"]) == []


def test_a_straight_line_is_found_and_a_bend_is_reported(table):
    slope, start, off = table.fit_line([(1, 3.0), (2, 5.0), (4, 9.0)])
    assert (slope, start, off) == (pytest.approx(2), pytest.approx(1), pytest.approx(0))
    assert table.fit_line([(1, 1.0), (2, 4.0), (4, 16.0)])[2] > 0.2


def test_the_table_names_every_comparison_and_lavidas_own_figure(table, tmp_path):
    sweep = {f"answer{n}": {"2": [{"prefix": side(n / 100)}]} for n in (50, 100, 200)}
    peaks = {"2": {"recipe": 1.0, "prefix": 0.5}, "6": {"recipe": 4.0, "prefix": 2.0}}
    store = {"command": "x", "machine": {"cores": 2}, "peak_gib": {"batch1": peaks}}
    store["cases"] = {"batch1": CASE, **sweep}
    text = table.write_table(store, tmp_path / "table.md")
    assert "| batch1 | prefix | huge, huge | 3.27 (2.53 to 4.00)x |" in text
    assert "| 4.0, 2.0 |" in text
    assert "1.62x slower" in text
    assert "| 200 | 2.00 |" in text
    assert (tmp_path / "table.md").read_text() == text


def test_the_cases_cover_what_is_claimed_and_their_memory_is_foreseen(table):
    import train_step

    assert {"batch1", "ragged4", "views"} <= train_step.CASES.keys()
    sweeps = [n for n in train_step.CASES if n.startswith("batch") and n.endswith("_even")]
    assert len(sweeps) == len(train_step.BATCHES)
    assert train_step.needed_gib(train_step.CASES["ragged4"]) > 16
