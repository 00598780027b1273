"""External metrics: adapted where their package is there, an error with a remedy where not.

The packages are stood in for by modules with the calls that f1chexbert 0.0.2, radgraph 0.1.18 and
radeval 2.2.1 have; their models need weights that no test has.
"""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from llava.eval import external, report_page
from llava.eval.compare import compare_runs
from llava.eval.external import ADAPTERS, UnavailableError, main, score
from llava.eval.external_scores import METRICS, Found, read_scores
from llava.eval.labeler import FINDINGS, label_report
from llava.eval.nlg import java
from llava.eval.predictions import Prediction, write_predictions

EFFUSION = "There is a left pleural effusion."
NORMAL = "The lungs are clear."
RUN = [
    Prediction("a", EFFUSION, EFFUSION, study_id="a"),
    Prediction("b", NORMAL, EFFUSION, study_id="b"),
    Prediction("c", " ", NORMAL, study_id="c"),
]


class F1CheXbert:
    target_names = FINDINGS

    def get_label(self, report, mode):
        assert mode == "classification"
        assert report.strip(), "the real one makes up labels for an empty report"
        return ["" if value is None else value for value in label_report(report).values()]


class F1RadGraph:
    def __init__(self, reward_level, model_type):
        assert (reward_level, model_type) == ("all", "radgraph")

    def __call__(self, refs, hyps):
        same = [float(bool(h) and h == r) for r, h in zip(refs, hyps, strict=True)]
        mean = sum(same) / len(same)
        return (mean, mean / 2, mean / 4), (same, [x / 2 for x in same], same), [], []


class RadEval:
    def __init__(self, metrics, per_sample, show_progress=True):
        assert per_sample
        (self.metric,) = metrics

    def __call__(self, refs, hyps):
        assert all(hyps)
        same = [r == h for r, h in zip(refs, hyps, strict=True)]
        return {
            "radcliq": {"radcliq_v1": [0.0 if equal else 2.0 for equal in same]},
            "green": {"green": [float(equal) for equal in same]},
            "srrbert": {
                "srrbert_weighted_precision": [0.5] * len(same),
                "srrbert_weighted_f1": [float(equal) for equal in same],
                "srrbert_label_scores": {"Edema": {"f1-score": 1.0}},
            },
            "rouge": {"rouge1": 0.3},
        }[self.metric]


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for the three packages, to be replaced or broken by a test."""
    modules = {
        "f1chexbert": SimpleNamespace(F1CheXbert=F1CheXbert),
        "radgraph": SimpleNamespace(F1RadGraph=F1RadGraph),
        "radeval": SimpleNamespace(RadEval=RadEval),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "RadEval", None)  # the alias goes with the test
    return modules


def test_chexbert_labels_are_counted_under_both_policies(packages):
    found = score("chexbert", RUN)
    assert set(found.values) == {"as_positive", "as_negative"}
    scores = found.values["as_negative"]
    assert scores["labeler"].startswith("CheXbert")
    effusion = scores["per_finding"]["Pleural Effusion"]
    assert (effusion["precision"], effusion["recall"], effusion["support"]) == (1.0, 0.5, 2)
    assert (found.n, found.n_empty, found.n_scored) == (3, 1, 3)


def test_radgraph_keeps_its_three_levels_and_an_empty_prediction_scores_zero(packages):
    found = score("radgraph", RUN)
    assert found.values == pytest.approx({"simple": 1 / 3, "partial": 1 / 6, "complete": 1 / 12})
    assert found.per_sample == {"a": 0.5, "b": 0.0, "c": 0.0}


def test_radcliq_is_a_mean_that_leaves_out_empty_predictions_and_says_so(packages):
    found = score("radcliq", RUN)
    assert found.values == {"radcliq_v1": 1.0}
    assert (found.n, found.n_empty, found.n_scored) == (3, 1, 2)
    assert "LOWER" in found.note
    assert set(found.per_sample) == {"a", "b"}


@pytest.mark.parametrize("metric", METRICS)
def test_a_missing_package_is_unavailable_with_the_remedy_and_no_file(
    metric, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, ADAPTERS[metric].module, None)
    write_predictions(RUN, tmp_path / "predictions.jsonl")
    assert main(["--metric", metric, "--predictions", str(tmp_path)]) == 1
    assert f"pip install {ADAPTERS[metric].package}" in capsys.readouterr().err
    assert not list(tmp_path.glob("external_*"))
    assert read_scores(tmp_path, RUN) == Found()


@pytest.mark.parametrize("metric", METRICS)
def test_missing_weights_are_unavailable_with_the_remedy(metric, packages):
    def broken(**_):
        raise OSError("no such file: model.pth")

    module = packages[ADAPTERS[metric].module]
    for name in vars(module):
        setattr(module, name, broken)
    with pytest.raises(UnavailableError, match=r"did not load.*no such file.*RRG_scorers"):
        score(metric, RUN)


def test_a_package_with_other_findings_is_refused(packages):
    packages["f1chexbert"].F1CheXbert = type("Other", (), {"target_names": ["Edema"]})
    with pytest.raises(UnavailableError, match=r"its findings are \['Edema'\]"):
        score("chexbert", RUN)


def test_a_value_that_is_not_finite_is_an_error(packages):
    class Broken(RadEval):
        def __call__(self, refs, hyps):
            return {"radcliq_v1": [float("nan")] * len(refs)}

    packages["radeval"].RadEval = Broken
    with pytest.raises(ValueError, match="radcliq, radcliq_v1 is nan"):
        score("radcliq", RUN)


def test_the_command_writes_what_read_scores_reads(packages, tmp_path, capsys):
    write_predictions(RUN, tmp_path / "predictions.jsonl")
    for metric in METRICS:
        file = tmp_path / "predictions.jsonl" if metric == "radcliq" else tmp_path
        assert main(["--metric", metric, "--predictions", str(file)]) == 0
    assert read_scores(tmp_path, RUN) == Found({metric: score(metric, RUN) for metric in METRICS})
    json.loads((tmp_path / "external_radgraph.json").read_text())
    assert "LOWER is better" in capsys.readouterr().out


@pytest.fixture
def scored_run(packages, tmp_path):
    """The folder of an evaluation, scored by every command."""
    write_predictions(RUN, tmp_path / "predictions.jsonl")
    (tmp_path / "results.json").write_text(json.dumps({"metrics": {}, "n": len(RUN)}))
    for metric in METRICS:
        assert main(["--metric", metric, "--predictions", str(tmp_path)]) == 0
    return tmp_path


def test_every_value_has_an_interval_around_it(scored_run):
    scores = read_scores(scored_run, RUN).scores
    for path in ("chexbert/as_positive/micro_14/f1", "radgraph/partial", "radcliq/radcliq_v1"):
        metric, *names = path.split("/")
        value, bounds = scores[metric].values, scores[metric].intervals
        for name in names:
            value, bounds = value[name], bounds[name]
        assert bounds[0] < value < bounds[1]


def test_the_page_shows_them_with_their_note(scored_run, capsys):
    assert report_page.main([str(scored_run)]) == 0
    page = (scored_run / "report.html").read_text(encoding="utf-8")
    for text in ("CheXbert, by f1chexbert", "RadGraph F1, by radgraph", "LOWER is better"):
        assert text in page
    assert "RadCliQ-v1" in page


def test_two_runs_are_compared_in_those_that_score_report_by_report(scored_run, monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: None)
    found = compare_runs(scored_run, scored_run, resamples=20)
    assert found["external/radgraph"].a == pytest.approx(1 / 6)
    assert found["external/radcliq"].a == 1.0
    assert "external/chexbert" not in found


def test_scores_of_other_predictions_are_named_and_not_shown(scored_run):
    other = [*RUN[:2], Prediction("c", "Another text.", NORMAL)]
    found = read_scores(scored_run, other)
    assert not found.scores
    assert set(found.unusable) == set(METRICS)
    assert "other predictions" in found.unusable["radgraph"]
    assert f"--metric radgraph --predictions {scored_run} again" in found.unusable["radgraph"]


@pytest.mark.parametrize("content", ["{", "[]", '{"metric": "radgraph"}'])
def test_a_damaged_score_file_is_named_and_not_shown(scored_run, content):
    (scored_run / "external_radgraph.json").write_text(content)
    found = read_scores(scored_run, RUN)
    assert set(found.scores) == {"chexbert", "radcliq"}
    assert "external_radgraph.json" in found.unusable["radgraph"]


def test_wrong_input_is_refused(packages, tmp_path, capsys):
    assert main(["--metric", "radgraph", "--predictions", str(tmp_path)]) == 2
    assert "does not exist" in capsys.readouterr().err
    with pytest.raises(ValueError, match="choose one of chexbert, radgraph, radcliq"):
        score("green", RUN)
    with pytest.raises(ValueError, match="every prediction is empty"):
        score("radcliq", RUN[2:])


def run_without(packages: tuple[str, ...], code: str) -> str:
    """What `code` prints in a process where these packages cannot be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
    found = subprocess.run(
        [sys.executable, "-c", blocked + code], capture_output=True, text=True, check=True
    )
    return found.stdout


def test_its_help_needs_no_package():
    code = "from llava.eval.external import main; main(['--help'])"
    assert external.PREDICTIONS_FILE in run_without(("torch", "transformers", "numpy"), code)


def test_it_scores_where_only_numpy_is_installed(tmp_path):
    (tmp_path / "f1chexbert.py").write_text(
        "from llava.eval.labeler import FINDINGS as target_names\n"
        "class F1CheXbert:\n"
        "    target_names = target_names\n"
        "    def get_label(self, report, mode): return [1] * 14\n"
    )
    write_predictions(RUN, tmp_path / "predictions.jsonl")
    others = ("torch", "transformers", "tokenizers", "PIL", "scipy", "yaml", "pycocoevalcap")
    code = (
        f"sys.path.insert(0, {str(tmp_path)!r})\nfrom llava.eval.external import main\n"
        f"main(['--metric', 'chexbert', '--predictions', {str(tmp_path)!r}])"
    )
    run_without(others, code)
    assert "chexbert" in read_scores(tmp_path, RUN).scores


def test_any_metric_of_radeval_has_values_per_report_and_intervals(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: None)
    write_predictions(RUN, tmp_path / "predictions.jsonl")
    for metric in ("radeval:green", "radeval:srrbert"):
        assert main(["--metric", metric, "--predictions", str(tmp_path)]) == 0
    found = read_scores(tmp_path, RUN).scores
    assert list(found) == ["radeval:green", "radeval:srrbert"]
    green, srr = found.values()
    assert (green.values, green.n_scored, green.n_empty) == ({"green": 0.5}, 2, 1)
    assert green.per_sample == {"a": 1.0, "b": 0.0}
    low, high = green.intervals["green"]
    assert low <= 0.5 <= high
    assert set(srr.values) == {"srrbert_weighted_precision", "srrbert_weighted_f1"}
    assert srr.per_sample == green.per_sample, "the main value is F1's"
    assert "external/radeval:green" in compare_runs(tmp_path, tmp_path, resamples=20)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("radeval:gren", "did you mean 'green'"),
        ("radeval:mammo_green", "another company's servers"),
        ("radeval:rouge", "without a number for each of 2 reports"),
        ("rouge", "radeval:NAME"),
    ],
)
def test_radeval_metrics_that_cannot_be_used_are_refused(
    packages, tmp_path, capsys, metric, message
):
    write_predictions(RUN, tmp_path / "predictions.jsonl")
    assert main(["--metric", metric, "--predictions", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("external_*"))
