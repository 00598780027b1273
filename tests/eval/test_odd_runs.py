"""Runs whose files hold a number, null or text where something else belongs: read, or refused."""

import json

import pytest

from bench.report_page import mock_run
from llava.eval import compare, report_page, score
from llava.eval.nlg import java

ODD = (3, None, "word", [], [3], {}, {"a": 3}, True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run of four reports, with results that `llava.eval.score` wrote."""
    folder = mock_run(tmp_path_factory.mktemp("run"), 4, image_size=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(java, "find_java", lambda: None)
        scored = folder / "scored"
        assert score.main([str(folder / "predictions.jsonl"), "--output", str(scored)]) == 0
    return scored


@pytest.fixture
def said(run, capsys, monkeypatch):
    """Run page and comparison on the run as it is now: nothing but an error in words."""
    monkeypatch.setattr(java, "find_java", lambda: None)

    def call(what: str) -> None:
        output = run / "page.html"
        commands = ((report_page.main, [str(run), "--output", str(output)]),)
        if what == "predictions":
            commands += ((compare.main, [str(run), str(run), "--resamples", "5"]),)
        for main, arguments in commands:
            status = main(arguments)
            error = capsys.readouterr().err
            assert status in (0, 2), error
            if status == 2:
                assert error.startswith("error: ")
                assert str(run) in error

    return call


def test_results_with_an_odd_part(run, said):
    path = run / "results.json"
    before = path.read_text()
    try:
        for name in json.loads(before):
            for odd in ODD:
                results = json.loads(before)
                results[name] = odd
                path.write_text(json.dumps(results))
                said("results")
        for odd in ODD:
            for part, name in (("protocol", "data"), ("protocol", "split"), ("clinical", "x")):
                results = json.loads(before)
                results[part][name] = odd
                path.write_text(json.dumps(results))
                said("results")
    finally:
        path.write_text(before)


def test_predictions_with_an_odd_field(run, said):
    path = run / "predictions.jsonl"
    before = path.read_text()
    first, *rest = before.splitlines()
    try:
        for name in json.loads(first):
            for odd in ODD:
                path.write_text("\n".join([json.dumps({**json.loads(first), name: odd}), *rest]))
                said("predictions")
        for line in ("3", "null", "[]", '"text"', "{}", "{"):
            path.write_text("\n".join([line, *rest]))
            said("predictions")
    finally:
        path.write_text(before)
