"""A request on its way through the engine: what was asked, its canvases, what it tells.

Job -> Passed, Passed, ... (when streamed) -> Finished or Failed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llava.diffusion.result import Decoded
from llava.writing.alternatives import Fill, fills, next_plan, ranked

if TYPE_CHECKING:
    from llava.diffusion.config import SamplingConfig
    from llava.diffusion.sampler import Denoiser
    from llava.writing.templates import FillPlan
    from llava.writing.writer import Prepared, Report, ReportWriter


@dataclass(frozen=True)
class Passed:
    """The canvas after a pass: ids, their confidence, and the pass that decided each (-1: none)."""

    nfe: int
    ids: list[int]
    confidence: list[float]
    decided_at: list[int]


@dataclass(frozen=True)
class Finished:
    """The report; of a template also the fills of each blank, the best one first."""

    report: Report
    fills: list[list[Fill]]


@dataclass(frozen=True)
class Failed:
    error: Exception


Event = Passed | Finished | Failed


@dataclass(eq=False)
class Job:
    """One request. on_event: called by the engine's thread. streams: whether it wants `Passed`.

    alternatives: further fills of each blank of a template. cancelled: set by whoever asked; the
    rows then leave at the next pass, and nothing is told any more.
    """

    prepared: Prepared
    sampling: SamplingConfig
    seed: int
    on_event: Callable[[Event], None]
    streams: bool = False
    alternatives: int = 0
    cancelled: bool = False
    prompts: tuple[Denoiser, Denoiser | None] | None = None
    _found: dict[int, Decoded] = field(default_factory=dict)
    _best: tuple[FillPlan, int, Decoded] | None = None
    _plan: FillPlan | None = None
    _fills: list[list[Fill]] = field(default_factory=list)

    @property
    def key(self) -> tuple[SamplingConfig, bool]:
        """Jobs of one key are decoded together."""
        return self.sampling, self.plan.scaffold is not None

    @property
    def plan(self) -> FillPlan:
        """The canvases that are decoded now: those that were asked for, then the alternatives."""
        return self._plan or self.prepared.plan

    @property
    def telling(self) -> bool:
        """Whether passes are told: the alternatives come after the report."""
        return self.streams and self._best is None and not self.cancelled

    def tell(self, event: Event) -> None:
        if not self.cancelled:
            self.on_event(event)

    def take(self, canvas: int, decoded: Decoded, writer: ReportWriter) -> FillPlan | None:
        """A canvas (B = 1) of the plan is done. Returns the next plan if there is one to decode."""
        self._found[canvas] = cropped(decoded, self.plan.sampling.gen_length)
        if len(self._found) < len(self.plan.prompts):
            return None
        whole = Decoded.cat([self._found[canvas] for canvas in sorted(self._found)])
        self._found = {}
        if self._best is None:
            self._take_best(whole, writer)
        else:
            for row, own in enumerate(self._fills):
                own.append(fills(whole, row, self.plan, writer.tokenizer)[row])
        return self._next(writer)

    def _take_best(self, whole: Decoded, writer: ReportWriter) -> None:
        plan = self.plan
        best = plan.best(whole)[0]
        self._best = (plan, best, whole)
        if self.streams:
            self.tell(passed(whole, best))
        if plan.infills:
            order = [best, *(row for row in range(len(plan.prompts)) if row != best)]
            by_canvas = [fills(whole, row, plan, writer.tokenizer) for row in order]
            self._fills = [list(own) for own in zip(*by_canvas, strict=True)]

    def _next(self, writer: ReportWriter) -> FillPlan | None:
        """Rounds of alternatives until every blank has enough, at most one more than were asked."""
        plan, best, whole = self._best
        chosen = [ranked(own, self.alternatives) for own in self._fills]
        rounds = max((len(own) for own in self._fills), default=0) - len(plan.prompts)
        if all(len(own) > self.alternatives for own in chosen) or rounds > self.alternatives:
            self.tell(Finished(writer.report(whole, best, plan), chosen))
            return None
        mask, pad = writer.model.config.mask_token_id, writer.tokenizer.pad_token_id
        ids = whole.sequences[best].tolist()
        self._plan = next_plan(plan, best, ids, self._fills, mask, pad)
        return self._plan


def cropped(decoded: Decoded, width: int) -> Decoded:
    """Without the padding that longer canvases of the same batch brought."""
    return replace(
        decoded,
        sequences=decoded.sequences[:, :width],
        confidence=decoded.confidence[:, :width],
        decided_at=decoded.decided_at[:, :width],
        drafts=None if decoded.drafts is None else decoded.drafts[:, :width],
    )


def passed(decoded: Decoded, row: int) -> Passed:
    return Passed(
        int(decoded.nfe[row]),
        decoded.sequences[row].tolist(),
        decoded.confidence[row].tolist(),
        decoded.decided_at[row].tolist(),
    )
