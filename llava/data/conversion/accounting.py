"""What became of every entry and every image of a conversion: counts that add up.

`records.convert` and `mimic_build` fill a `ConversionReport`; the command lines print its table.
Nothing is left out without being counted here under a reason.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from llava.data.conversion.cleaning import shown
from llava.data.conversion.splits import SPLITS

EXAMPLES = 5
"""How many names are shown for each reason."""

_ROW = "{:<6} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9}"


@dataclass
class SplitCounts:
    """entries = converted + skipped entries; images = samples + skipped images.

    samples: images that are in a sample; one each, unless a sample has several.
    """

    entries: int = 0
    converted: int = 0
    images: int = 0
    samples: int = 0
    skipped_entries: Counter[str] = field(default_factory=Counter)
    skipped_images: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "SplitCounts") -> "SplitCounts":
        return SplitCounts(
            entries=self.entries + other.entries,
            converted=self.converted + other.converted,
            images=self.images + other.images,
            samples=self.samples + other.samples,
            skipped_entries=self.skipped_entries + other.skipped_entries,
            skipped_images=self.skipped_images + other.skipped_images,
        )

    def add_up(self) -> bool:
        return (
            self.entries == self.converted + self.skipped_entries.total()
            and self.images == self.samples + self.skipped_images.total()
        )


@dataclass
class ConversionReport:
    """The counts of every split, and the first few names behind each reason.

    entries: what an entry of the source is called.
    """

    splits: dict[str, SplitCounts] = field(
        default_factory=lambda: {split: SplitCounts() for split in SPLITS}
    )
    entries: str = "entries"
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def skip_entry(self, split: str, reason: str, name: str) -> None:
        self.splits[split].skipped_entries[reason] += 1
        self._remember(self.entries, reason, name)

    def skip_image(self, split: str, reason: str, name: str) -> None:
        self.splits[split].skipped_images[reason] += 1
        self._remember("images", reason, name)

    def total(self) -> SplitCounts:
        return sum(self.splits.values(), SplitCounts())

    def table(self) -> str:
        """The counts as text: one row per split, the total, and every reason with examples."""
        assert all(counts.add_up() for counts in self.splits.values())
        lines = [
            _ROW.format(
                "split",
                self.entries,
                "= converted",
                "+ skipped",
                "images",
                "= used",
                "+ skipped",
            )
        ]
        for name, counts in [*self.splits.items(), ("total", self.total())]:
            lines.append(
                _ROW.format(
                    name,
                    counts.entries,
                    counts.converted,
                    counts.skipped_entries.total(),
                    counts.images,
                    counts.samples,
                    counts.skipped_images.total(),
                )
            )
        total = self.total()
        lines += self._reasons(self.entries, total.skipped_entries)
        lines += self._reasons("images", total.skipped_images)
        return "\n".join(lines)

    def _remember(self, kind: str, reason: str, name: str) -> None:
        names = self.examples[f"{kind}: {reason}"]
        if len(names) < EXAMPLES:
            names.append(name)

    def _reasons(self, kind: str, reasons: Counter[str]) -> list[str]:
        return [
            f"skipped {kind}, {reason}: {count}"
            f" (e.g. {', '.join(map(shown, self.examples[f'{kind}: {reason}']))})"
            for reason, count in reasons.most_common()
        ]
