"""Make a sample of each image of a study, or of the first (`--per-study all` and `first`)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from llava.data.conversion.accounting import ConversionReport
from llava.data.conversion.cleaning import shown
from llava.data.conversion.output import Conversation
from llava.data.conversion.splits import SPLITS
from llava.data.conversion.study import (
    MISSING,
    NOT_FIRST,
    REPEATED,
    Locate,
    Study,
    count_entry,
    image_name,
    to_conversation,
)


def convert(
    studies: Iterable[Study], locate: Locate, report: ConversionReport, per_study: str = "all"
) -> dict[str, list[Conversation]]:
    """Return the conversations of each split, one per image; `report` counts the rest.

    per_study: "all" images of a study, or the "first" whose file exists; entries with the same
    `study` are one study. Raises ValueError when one image has two different texts in a split.
    """
    studies = list(studies)
    converter = _Converter(locate, report, per_study == "first", _owners(studies))
    for study in studies:
        converter.add(study)
    return {split: list(samples.values()) for split, samples in converter.written.items()}


@dataclass
class _Converter:
    """`convert` in progress. written: split -> sample id -> conversation.

    owners: (split, possible sample id) -> the images that could carry it.
    done: (split, study) of the studies that have a sample.
    """

    locate: Locate
    report: ConversionReport
    first_only: bool
    owners: dict[tuple[str, str], set[str]]
    written: dict[str, dict[str, Conversation]] = field(
        default_factory=lambda: {split: {} for split in SPLITS}
    )
    done: set[tuple[str, str | int]] = field(default_factory=set)

    def add(self, study: Study) -> None:
        problem = count_entry(study, self.report) or self._add_images(study)
        if problem:
            self.report.skip_entry(study.split, problem, study.id)
        else:
            self.report.use_entry(study.split, study.remark, study.id)

    def _add_images(self, study: Study) -> str | None:
        """Return why the entry gave no sample, or None when it gave one."""
        key = study.split, study.study or id(study)  # without a study's name, one of its own
        reasons: list[str | None] = []
        for image in study.images:
            skip = self.first_only and key in self.done
            reason = NOT_FIRST if skip else self._add_image(study, image)
            if reason in (None, REPEATED):
                self.done.add(key)
            if reason:
                self.report.skip_image(study.split, reason, image)
            reasons.append(reason)
        return None if None in reasons else f"no image left: {reasons[0]}"

    def _add_image(self, study: Study, image: str) -> str | None:
        """Return why the image gave no sample, or None when it gave one."""
        path = self.locate(image, study.id)
        if path is None:
            return MISSING
        name = self._sample_id(study, image)
        sample = to_conversation(name, path, study.report, study.context, study.study or study.id)
        earlier = self.written[study.split].setdefault(name, sample)
        if earlier is sample:
            self.report.splits[study.split].samples += 1
            return None
        if earlier["conversations"] != sample["conversations"]:
            raise ValueError(
                f"split {study.split!r}, entry {shown(study.id)}: image {shown(image)} was "
                "listed before in this split with another text; keep one of the two entries"
            )
        return REPEATED

    def _sample_id(self, study: Study, image: str) -> str:
        """Return the entry's id, else the image's file name, else its path: the first unique."""
        names = [study.id] if len(study.images) == 1 else []
        for name in [*names, image_name(image)]:
            if self.owners[study.split, name] == {image}:
                return name
        return image.removesuffix("".join(PurePosixPath(image).suffixes[-1:]))


def _owners(studies: Sequence[Study]) -> dict[tuple[str, str], set[str]]:
    """Return (split, possible sample id) -> the images that could carry it."""
    owners: dict[tuple[str, str], set[str]] = defaultdict(set)
    for study in studies:
        for image in study.images:
            owners[study.split, image_name(image)].add(image)
            if len(study.images) == 1:
                owners[study.split, study.id].add(image)
    return owners
