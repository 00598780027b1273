"""The table of infill on the results page: each arm's three records (`bench.study.infill`)."""

from __future__ import annotations

from bench.study.arms import ARMS
from bench.study.infill import ONE, ONE_LEFT
from bench.study.tables import TWIN, Results, show, show_difference, table

HEAD = ("arm", "all blanked: F1", "right", "exact", "one blanked: right", "exact", "F1 of the fill")
HEAD += ("nothing after it: right", "exact", "F1 of the fill", "right context: right", "F1")
SHOWN = ("infill_right", "infill_exact", "infill_fill_f1")


def infill(results: Results) -> str:
    """A row for each arm that has filled single blanks; the last columns are paired by seed."""
    names = ["base", TWIN, *(arm.name for arm in ARMS if arm.name != "base")]
    rows = []
    for arm in names:
        if not results.of(arm, ONE):
            continue
        whole = (results.mean(arm, name, "infill") for name in ("infill_f1", *SHOWN[:2]))
        one, left = ([results.mean(arm, name, each) for name in SHOWN] for each in (ONE, ONE_LEFT))
        gains = [
            show_difference(results.between(name, (arm, ONE), (arm, ONE_LEFT)))
            for name in (SHOWN[0], SHOWN[2])
        ]
        rows.append([f"`{arm}`", *map(show, (*whole, *one, *left)), *gains])
    return table(HEAD, rows) if rows else "Not measured in this run."
