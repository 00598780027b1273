"""Draw what a phantom shows, before anything is painted or written.

First step of the phantom corpus: a `Finding` carries the few attributes (side, size, zone, kind)
on which the picture (`anatomy`, `lesions`) and the report (`language`) must agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from llava.phantom.difficulty import EASY, Difficulty

FINDINGS = (
    "cardiomegaly",
    "left_effusion",
    "right_effusion",
    "left_pneumothorax",
    "right_pneumothorax",
    "left_consolidation",
    "right_consolidation",
    "edema",
    "atelectasis",
    "nodule",
    "pacemaker",
    "tube_or_line",
    "normal",
)
"""Every label of the corpus; `normal` is for a case with none of the others."""

SIDES = ("left", "right")
ZONES = ("upper", "mid", "lower")
DEVICES = ("endotracheal", "enteric", "central", "picc")


@dataclass(frozen=True)
class Finding:
    """One finding. `side` is the patient's; an attribute that does not apply is empty."""

    name: str
    side: str = ""
    size: str = ""
    zone: str = ""
    kind: str = ""


def sample_findings(rng: Generator, difficulty: Difficulty = EASY) -> tuple[Finding, ...]:
    """Return the findings of a case in the order of `FINDINGS`; `normal` when there are none."""
    if rng.random() < difficulty.normal_share:
        return (Finding("normal"),)
    counts, share = difficulty.counts, None
    count = 1 + int(rng.choice(len(counts), p=counts))
    if difficulty.weights:
        weights = [difficulty.weights[name] for name in FINDINGS[:-1]]
        share = [weight / sum(weights) for weight in weights]
    chosen = rng.choice(len(FINDINGS) - 1, size=count, replace=False, p=share)
    names = {FINDINGS[index] for index in chosen}
    placed = _Placement(names, rng).all()
    return tuple(placed[name] for name in FINDINGS if name in placed)


class _Placement:
    """Gives every finding its attributes so that findings do not hide each other.

    A lung has three zones; what fills one keeps it, and the smaller findings take what is free.
    """

    ORDER = (
        "cardiomegaly",
        "left_pneumothorax",
        "right_pneumothorax",
        "pacemaker",
        "left_effusion",
        "right_effusion",
        "left_consolidation",
        "right_consolidation",
        "atelectasis",
        "nodule",
        "edema",
        "tube_or_line",
    )

    def __init__(self, names: set[str], rng: Generator):
        self.names, self.rng = names, rng
        self.free = {(side, zone) for side in SIDES for zone in ZONES}

    def all(self) -> dict[str, Finding]:
        return {name: self._place(name) for name in self.ORDER if name in self.names}

    def _place(self, name: str) -> Finding:
        side, _, kind = name.partition("_")
        if side in SIDES:
            return getattr(self, f"_{kind}")(name, side)
        return getattr(self, f"_{name}")(name)

    def _one_of(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _slot(self, sides: tuple[str, ...], zones: tuple[str, ...]) -> tuple[str, str]:
        """Take a free (side, zone), or the middle of a lung when none is free."""
        slots = tuple(sorted(s for s in self.free if s[0] in sides and s[1] in zones))
        slot = slots[int(self.rng.integers(len(slots)))] if slots else (self._one_of(sides), "mid")
        self.free.discard(slot)
        return slot

    def _cardiomegaly(self, name: str) -> Finding:
        self.free.discard(("left", "lower"))
        return Finding(name, size=self._one_of(("mild", "moderate", "severe")))

    def _pneumothorax(self, name: str, side: str) -> Finding:
        self.free -= {(side, "upper"), (side, "lower")}
        return Finding(name, side, self._one_of(("small", "moderate", "large")))

    def _pacemaker(self, name: str) -> Finding:
        side = "right" if self.rng.random() < 0.15 else "left"
        self.free.discard((side, "upper"))
        return Finding(name, side, kind=self._one_of(("single", "dual")))

    def _effusion(self, name: str, side: str) -> Finding:
        crowded = {f"{side}_pneumothorax", f"{side}_consolidation"} & self.names
        sizes = ("small", "moderate") if crowded else ("small", "moderate", "large")
        if side == "left" and "cardiomegaly" in self.names:
            sizes = tuple(size for size in sizes if size != "small")
        size = self._one_of(sizes)
        self.free.discard((side, "lower"))
        if size == "large":
            self.free.discard((side, "mid"))
        return Finding(name, side, size)

    def _consolidation(self, name: str, side: str) -> Finding:
        return Finding(name, side, zone=self._slot((side,), ZONES)[1])

    def _atelectasis(self, name: str) -> Finding:
        bases = tuple(sorted(side for side, zone in self.free if zone == "lower"))
        side, zone = self._slot(bases or SIDES, ("lower",) if bases else ("mid",))
        return Finding(name, side, zone=zone)

    def _nodule(self, name: str) -> Finding:
        side, zone = self._slot(SIDES, ZONES)
        return Finding(name, side, zone=zone)

    def _edema(self, name: str) -> Finding:
        return Finding(name, size=self._one_of(("mild", "moderate", "severe")))

    def _tube_or_line(self, name: str) -> Finding:
        kind = self._one_of(DEVICES)
        side = self._one_of(SIDES) if kind in ("central", "picc") else ""
        return Finding(name, side, kind=kind)
