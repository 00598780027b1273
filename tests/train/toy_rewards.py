"""Rewards whose best report is known, for runs of stage 3 in the tests."""


def share_of_e(report):
    """Share of the letter e; 0 for a report without text."""
    return report.text.count("e") / len(report.text) if report.text else 0.0


def broken(report):
    return float("nan")
