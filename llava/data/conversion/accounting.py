"""Account for every entry and every image of a conversion, in counts that add up.

The converters and `mimic_cxr.build` fill a `ConversionReport`; the command lines print its table.
Nothing is left out without being counted here under a reason.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields

from llava.data.conversion.cleaning import shown
from llava.data.conversion.splits import SPLITS

EXAMPLES = 5
"""How many names are shown for each reason."""

_ROW = "{:<6} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9}"


@dataclass
class SplitCounts:
    """entries = converted + skipped entries; images = samples + skipped images.

    samples: images that are in a sample; one each, unless a sample has several.
    remarks: entries that were converted, with something to know about them.
    """

    entries: int = 0
    converted: int = 0
    images: int = 0
    samples: int = 0
    skipped_entries: Counter[str] = field(default_factory=Counter)
    skipped_images: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "SplitCounts") -> "SplitCounts":
        names = [one.name for one in fields(self)]
        return SplitCounts(*(getattr(self, name) + getattr(other, name) for name in names))

    def add_up(self) -> bool:
        return (
            self.entries == self.converted + self.skipped_entries.total()
            and self.images == self.samples + self.skipped_images.total()
        )


@dataclass
class ConversionReport:
    """The counts of every split, and the first few names under each reason.

    entries: what an entry of the source is called.
    """

    splits: dict[str, SplitCounts] = field(
        default_factory=lambda: {split: SplitCounts() for split in SPLITS}
    )
    entries: str = "entries"
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def skip_entry(self, split: str, reason: str, name: str) -> None:
        self.splits[split].skipped_entries[reason] += 1
        self._remember(f"skipped {self.entries}, {reason}", name)

    def skip_image(self, split: str, reason: str, name: str) -> None:
        self.splits[split].skipped_images[reason] += 1
        self._remember(f"skipped images, {reason}", name)

    def use_entry(self, split: str, remark: str, name: str) -> None:
        """Count a converted entry. remark: something to know about it; "" for nothing."""
        self.splits[split].converted += 1
        if remark:
            self.splits[split].remarks[remark] += 1
            self._remember(remark, name)

    def total(self) -> SplitCounts:
        return sum(self.splits.values(), SplitCounts())

    def table(self) -> str:
        """Return the counts as text: a row per split, the total, every reason with examples."""
        assert all(counts.add_up() for counts in self.splits.values())
        header = ("split", self.entries, "= converted", "+ skipped", "images", "= used")
        lines = [_ROW.format(*header, "+ skipped")]
        total = self.total()
        for name, counts in [*self.splits.items(), ("total", total)]:
            skipped = counts.skipped_entries.total(), counts.skipped_images.total()
            entries = counts.entries, counts.converted, skipped[0]
            lines.append(_ROW.format(name, *entries, counts.images, counts.samples, skipped[1]))
        lines += self._reasons(f"skipped {self.entries}, ", total.skipped_entries)
        lines += self._reasons("skipped images, ", total.skipped_images)
        lines += self._reasons("", total.remarks)
        return "\n".join(lines)

    def _remember(self, line: str, name: str) -> None:
        if len(self.examples[line]) < EXAMPLES:
            self.examples[line].append(name)

    def _reasons(self, kind: str, reasons: Counter[str]) -> list[str]:
        return [
            f"{kind}{reason}: {count} (e.g. {', '.join(map(shown, self.examples[kind + reason]))})"
            for reason, count in reasons.most_common()
        ]
