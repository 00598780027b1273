"""What a run of stage 3 shows of itself."""

import pytest
import torch

from llava.reward.policy import PolicyLoss
from llava.reward.rollout import Group, Sampled
from llava.reward.watch import RewardMonitor, group_page


def group(texts, totals, ended=True):
    reports = [Sampled([1] * (number + 1), text, ended, 2) for number, text in enumerate(texts)]
    return Group(reports, {"findings": list(totals)}, list(totals))


def test_the_log_holds_means_over_groups_and_over_tokens():
    monitor = RewardMonitor(["findings"], torch.device("cpu"))
    tokens, real = torch.tensor([3, 3, 9]), torch.tensor([True, True, False])
    policy = PolicyLoss(torch.zeros(3), tokens * 0.5, torch.tensor([1, 2, 9]), tokens)
    groups = [group(["a", "b"], [0.0, 1.0]), group(["c", "c"], [0.5, 0.5])]
    monitor.record(groups, policy, torch.tensor([0.7, 0.0, 9.0]), real)
    found = monitor.summary()
    expected = {
        "reward": 0.5,
        "reward_findings": 0.5,
        "reward_spread": 0.25,
        "groups_without_spread": 0.5,
        "distinct_reports": 0.75,
        "report_tokens": 1.5,
        "reports_ended": 1.0,
        "tokens_per_pass": 0.75,
        "kl_per_token": 0.5,
        "clipped_share": 0.5,
        "denoising_loss": 0.7,
    }
    assert found == pytest.approx(expected)
    assert monitor.summary()["reward"] == 0


def test_only_a_best_report_that_ended_and_beats_another_is_accepted():
    assert group(["a", "b", "c"], [0.1, 0.9, 0.9]).accepted == 1
    assert group(["a", "b"], [0.5, 0.5]).accepted is None
    assert group(["a", "b"], [0.1, 0.5], ended=False).accepted is None


def test_texts_of_a_group_are_quoted_and_the_best_comes_first():
    page = group_page(
        "<b>id</b>", "# Reference", group(["worse", "<img src=x>\n# best"], [0.25, 0.75])
    )
    assert page.index("best") < page.index("worse")
    assert "**0.750 (+0.250)**: findings 0.75" in page
    for line in page.splitlines():
        assert not line.startswith(("<", "#"))
