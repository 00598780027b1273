"""Studies, tables and figures -> the text of the HTML file.

Whatever comes from the run is escaped on its way in: by the template (Jinja's autoescape), or as
JSON without `<`, which the script sets as text only. The content security policy admits this
style and this script by their hashes: nothing that slipped through could run or call out.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llava.eval.labeler import LABELER
from llava.eval.page import figures
from llava.eval.page.findings import (
    ERRORS,
    POLICY_WORDS,
    STATES,
    confuse,
    count_states,
    score_findings,
)
from llava.eval.page.images import Embedded
from llava.eval.page.run import Run
from llava.eval.page.studies import FLAGS, Study, flags, record
from llava.eval.page.tables import finding_interval, protocol_rows, score_table
from llava.theme import PARTS, STYLE

ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("text.js", "filter.js", "study.js", "main.js")


@dataclass(frozen=True)
class Gallery:
    """The reports that are shown with text and images, which may be fewer than were scored."""

    studies: Sequence[Study]
    images: Sequence[Sequence[Embedded]]

    def warnings(self, scored: int) -> list[str]:
        """What the page cannot show of the run, for its reader and for who writes it."""
        problems = [image.problem for row in self.images for image in row if image.problem]
        bare = sum(not study.prediction.images for study in self.studies)
        silent = sum(not study.prediction.tokens for study in self.studies)
        odd = sum(bool(s.prediction.tokens) and s.places is None for s in self.studies)
        n = len(self.studies)
        few = f"reports shown: {n} of {scored}, evenly spaced; tables and plots are of all"
        counted = {
            few: n < scored,
            f"images that cannot be shown: {len(problems)} ({''.join(problems[:1])})": problems,
            f"reports that name no image: {bare} of {n}": bare,
            f"reports without their tokens: {silent} of {n}": silent,
            f"reports whose tokens do not spell their text: {odd} of {n}": odd,
        }
        return [text for text, holds in counted.items() if holds]


def render(run: Run, studies: Sequence[Study], gallery: Gallery, policy: str) -> str:
    """The whole page. studies: all of the run; the tables and figures are of these."""
    urls: list[str] = []
    records = [
        record(study, images, urls)
        for study, images in zip(gallery.studies, gallery.images, strict=True)
    ]
    style = "\n".join(path.read_text(encoding="utf-8") for path in (STYLE, ASSETS / "page.css"))
    script = _script()
    comparisons = [study.comparison for study in studies]
    made = [statement for study in studies for statement in study.statements(policy)]
    return _template().render(
        title=_title(run),
        csp=_policy(style, script),
        style=style,
        script=script,
        n=len(studies),
        n_studies=run.results.get("n_studies"),
        overview=_overview(studies),
        table=score_table(run),
        protocol=protocol_rows(run),
        policy=POLICY_WORDS[policy],
        errors=ERRORS,
        flags=FLAGS,
        labeler=LABELER,
        scores=score_findings(comparisons),
        finding_interval=partial(finding_interval, run, policy),
        confusion=confuse(comparisons),
        states=STATES,
        state_counts=count_states(comparisons),
        lengths=figures.length_plot(run.predictions),
        calibration=figures.calibration(made),
        warnings=[*map(str, run.results.get("warnings") or []), *gallery.warnings(len(studies))],
        splits=sorted({study.split for study in gallery.studies}),
        data=_json(records),
        images=_json(urls),
    )


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _script() -> str:
    """One classic script: a single file has no module to import."""
    parts = PARTS.read_text(encoding="utf-8").replace("\nexport ", "\n")
    own = [(ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    return "\n".join(['"use strict";', parts, *own])


def _json(value: Any) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _title(run: Run) -> str:
    checkpoint = run.protocol.get("checkpoint")
    return Path(str(checkpoint)).name if checkpoint else run.folder.resolve().name


def _overview(studies: Sequence[Study]) -> list[tuple[str, int]]:
    """Counts that say at a glance how the run went."""
    kinds = Counter(kind for study in studies for kind in study.comparison.verdicts.values())
    flagged = Counter(flag for study in studies for flag in flags(study.prediction))
    missed = kinds["missed"] + kinds["denied"]
    return [
        ("reports", len(studies)),
        *((name, flagged[name]) for name in FLAGS),
        ("findings agreed", kinds["agreed"]),
        ("missed", missed),
        ("invented", kinds["invented"]),
    ]
