"""A reward of another package, asked of `llava.eval.external_rewards` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava.reward.rewards import Written

_ROOT = Path(__file__).resolve().parents[2]


class ExternalReward:
    """Starts the process and waits until its model is loaded; it ends with this one.

    python: an interpreter that has the metric's package; this one when empty. Raises ValueError,
    with the metric's own remedy, when it cannot run there.
    """

    def __init__(self, metric: str, python: str = "") -> None:
        self.metric = metric
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [python or sys.executable, "-m", "llava.eval.external_rewards"]
        try:
            self.process = subprocess.Popen(
                [*command, "--metric", metric],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        except OSError as error:
            raise ValueError(
                f"--reward_python {python}: {error}; give the interpreter of an environment"
            ) from error
        self._answer()

    def __call__(self, reports: Sequence[Written]) -> list[float]:
        """One value for each report. Raises ValueError when the process fails on them."""
        pairs = [(report.reference, report.text) for report in reports]
        try:
            self.process.stdin.write(json.dumps(pairs) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it is gone; its last answer says why, or there is none
        return self._answer()["values"]

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process ended; see its output above"}
        if "error" in answer:
            self.process.wait()
            raise ValueError(
                f"--rewards {self.metric}: {answer['error']} (--reward_python names the "
                "interpreter of such an environment); or leave this reward out"
            )
        return answer
