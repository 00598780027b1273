"""Rewards whose best report is known, for runs of stage 3 in the tests."""


def letters(report):
    """Share of characters that are lower-case letters; 0 for a report without text."""
    text = report.text
    return sum("a" <= each <= "z" for each in text) / len(text) if text else 0.0


def broken(report):
    return float("nan")
