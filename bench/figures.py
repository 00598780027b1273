"""What the data benchmarks do with their figures: print them, and write them where asked."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any


def show(results: dict[str, Any], output: Path | None) -> None:
    """The figures and the machine as JSON; to `output` too, when it is given."""
    machine = {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine()}
    text = json.dumps({**results, **machine}, indent=2)
    print(text)
    if output:
        output.write_text(text + "\n", encoding="utf-8")
