"""The weighted sum of rewards, what it refuses, and rewards in a process of their own."""

import pytest

from llava.reward.rewards import Written
from llava.reward.scorer import Scorer, parse_weights

REPORTS = [Written("Left pleural effusion.", "Left pleural effusion."), Written("", "Clear lungs.")]
PACKAGE = """
class F1RadGraph:
    def __init__(self, reward_level, model_type):
        print("loading", model_type)

    def __call__(self, refs, hyps):
        if "fail" in hyps:
            raise RuntimeError("no entities")
        same = [float(bool(h) and h == r) for r, h in zip(refs, hyps)]
        return (1, 1, 1), (same, [x / 2 for x in same], same), [], []
"""

OWN = "def short(report):\n    return float(not report.text)\n"


def not_a_number(report):
    return float("nan")


def too_much(report):
    return 1.5


def test_parts_are_kept_and_the_total_is_their_weighted_sum():
    scores = Scorer.load({"findings": 2.0, "format": 0.5})(REPORTS)
    assert scores.parts["format"] == [1.0, 0.0]
    assert scores.total == [
        pytest.approx(2 * f + 0.5 * e)
        for f, e in zip(scores.parts["findings"], scores.parts["format"], strict=True)
    ]


def test_weights_are_1_unless_they_are_given():
    assert parse_weights("findings, rouge_l=0.5") == {"findings": 1.0, "rouge_l": 0.5}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "--rewards is empty"),
        ("finding=1", "'finding' is unknown; did you mean 'findings'"),
        ("findings=0", "must be a number above 0"),
        ("findings=nan", "must be a number above 0"),
        ("findings=much", "must be a number above 0"),
        ("findings,findings=2", "given twice"),
    ],
)
def test_rewards_that_cannot_be_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        parse_weights(spec)


@pytest.mark.parametrize(("function", "value"), [(not_a_number, "nan"), (too_much, "1.5")])
def test_a_value_outside_0_to_1_is_refused_with_reward_and_report(function, value):
    scorer = Scorer({"own": 1.0}, {"own": lambda reports: [function(r) for r in reports]})
    with pytest.raises(ValueError, match=f"reward 'own' is {value} for the report 'Left pleural"):
        scorer(REPORTS)


def test_a_function_of_ones_own_is_named_by_module(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(
        "def short(report):\n    return float(not report.text)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert Scorer.load({"own_rewards:short": 1.0})(REPORTS).total == [0.0, 1.0]
    with pytest.raises(ValueError, match="'own_rewards:long' cannot be imported"):
        Scorer.load({"own_rewards:long": 1.0})


def test_a_missing_package_is_an_error_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text(
        "def entities(report):\n    import no_such_package\n    return 1.0"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"a package is missing: .*no_such_package.*pip install"):
        Scorer.load({"needs_more:entities": 1.0})


def test_an_external_reward_runs_in_its_own_process(tmp_path, monkeypatch):
    (tmp_path / "radgraph.py").write_text(PACKAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    scorer = Scorer.load({"radgraph": 1.0})
    assert scorer(REPORTS).total == [0.5, 0.0]
    assert scorer(REPORTS).total == [0.5, 0.0]
    with pytest.raises(ValueError, match="radgraph failed: RuntimeError: no entities"):
        scorer([Written("fail", "fail")])


def test_an_external_reward_without_its_package_is_refused():
    with pytest.raises(ValueError, match=r"chexbert is unavailable.*pip install f1chexbert"):
        Scorer.load({"chexbert": 1.0})
    with pytest.raises(ValueError, match="--reward_python /no/python"):
        Scorer.load({"chexbert": 1.0}, "/no/python")
