"""The one shape of a study, and what makes conversations of it.

    source files -> a collection's reader -> Study -> convert() -> `writer` -> `entries`

Every collection (`mimic_cxr`, `iu_xray`, ...) has a reader that yields `Study` objects, its texts
cleaned by `cleaning`. `convert` turns them into conversations and counts in a `ConversionReport`
whatever is left out; `writer` puts the conversations into {train,val,test}_llave_llada.json, which
is what the training and evaluation scripts read.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from llava.constants import (
    CLINICAL_FIELDS,
    CLINICAL_PROMPT,
    IMAGE_PLACEHOLDER,
    PRIOR_REPORT,
    QUESTION,
)
from llava.data.conversion.accounting import ConversionReport
from llava.data.conversion.cleaning import shown, unusable_because
from llava.data.conversion.output import Conversation
from llava.data.conversion.splits import SPLITS

PER_STUDY = ("all", "first", "all-views")
"""--per-study; the last is made by `study_views`, the others by `convert`."""
MISSING = "file not found under the image root"
NOT_FIRST = "not the first of its entry (--per-study first)"
REPEATED = "repeats an earlier sample"
IN_SKIPPED_ENTRY = "its entry is skipped"
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".dcm", ".dicom"})

Locate = Callable[[str, str], str | None]
"""(listed image, entry id for errors) -> path relative to the image root; None: no file there."""


@dataclass(frozen=True)
class Study:
    """One entry of a collection: its images, and the report that answers each of them.

    images: paths relative to the image root, with forward slashes.
    context: the clinical fields that exist, keys from CLINICAL_FIELDS.
    problem: why the reader cannot use this entry at all; None when it can.
    set_aside: images of the entry that the reader leaves out, each with its reason.
    views: view position of each image, for `study_views`, as are the next three; "" is unknown.
    study, subject: the source's names of them. taken: when; later sorts behind earlier.
    """

    id: str
    split: str
    images: tuple[str, ...]
    report: str
    context: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None
    set_aside: tuple[tuple[str, str], ...] = ()
    views: tuple[str, ...] = ()
    study: str = ""
    subject: str = ""
    taken: str = ""


def human_turn(
    context: Mapping[str, str | None], roles: Sequence[str] = (), prior_report: str | None = None
) -> str:
    """The question, with the clinical fields that `context` holds.

    context: keys from CLINICAL_FIELDS; None and blank mean absent. roles: the word before each
    image ("Frontal", "Prior lateral"); without any, there is one image and no word.
    prior_report: of the study before. Raises ValueError on an unknown key of `context`.
    """
    unknown = [key for key in context if key not in CLINICAL_FIELDS]
    if unknown:
        raise ValueError(
            f"clinical context has the field {shown(unknown[0])}; "
            f"the fields are {', '.join(CLINICAL_FIELDS)}"
        )
    given = [(name, (context.get(name) or "").strip()) for name in CLINICAL_FIELDS]
    fields = [f"{name.capitalize()}: {text}" for name, text in given if text]
    if prior_report:
        fields.append(f"{PRIOR_REPORT} {prior_report}")
    images = [f"{role}: {IMAGE_PLACEHOLDER}" for role in roles] or [IMAGE_PLACEHOLDER]
    question = "\n".join([*images, QUESTION])
    return " ".join([question, CLINICAL_PROMPT, *fields]) if fields else question


def to_conversation(
    sample_id: str, image: str, report: str, context: Mapping[str, str | None]
) -> Conversation:
    """One sample in the form that the written files hold."""
    return {
        "id": sample_id,
        "image": image,
        "conversations": [
            {"from": "human", "value": human_turn(context)},
            {"from": "gpt", "value": report},
        ],
    }


def convert(
    studies: Iterable[Study], locate: Locate, report: ConversionReport, per_study: str = "all"
) -> dict[str, list[Conversation]]:
    """Studies -> the conversations of each split, one per image; `report` counts the rest.

    per_study: "all" images of a study, or the "first" whose file is there.
    Raises ValueError when one image carries two different texts within a split.
    """
    studies = list(studies)
    converter = _Converter(locate, report, per_study, _owners(studies))
    for study in studies:
        converter.add(study)
    return {split: list(samples.values()) for split, samples in converter.written.items()}


@dataclass
class _Converter:
    """`convert` in progress. written: split -> sample id -> conversation."""

    locate: Locate
    report: ConversionReport
    per_study: str
    owners: dict[tuple[str, str], set[str]]
    written: dict[str, dict[str, Conversation]] = field(
        default_factory=lambda: {split: {} for split in SPLITS}
    )

    def add(self, study: Study) -> None:
        counts = self.report.splits[study.split]
        counts.entries += 1
        counts.images += len(study.images) + len(study.set_aside)
        for image, reason in study.set_aside:
            self.report.skip_image(study.split, reason, image)
        problem = problem_of(study)
        if problem:
            for image in study.images:
                self.report.skip_image(study.split, IN_SKIPPED_ENTRY, image)
        else:
            problem = self._add_images(study)
        if problem:
            self.report.skip_entry(study.split, problem, study.id)
        else:
            counts.converted += 1

    def _add_images(self, study: Study) -> str | None:
        """Why the study gave no sample, or None when it gave one."""
        reasons: list[str | None] = []
        for image in study.images:
            taken = any(reason in (None, REPEATED) for reason in reasons)
            skip = self.per_study == "first" and taken
            reasons.append(NOT_FIRST if skip else self._add_image(study, image))
            if reasons[-1]:
                self.report.skip_image(study.split, reasons[-1], image)
        return None if None in reasons else f"no image left: {reasons[0]}"

    def _add_image(self, study: Study, image: str) -> str | None:
        """Why the image gave no sample, or None when it gave one."""
        path = self.locate(image, study.id)
        if path is None:
            return MISSING
        name = self._sample_id(study, image)
        sample = to_conversation(name, path, study.report, study.context)
        earlier = self.written[study.split].setdefault(name, sample)
        if earlier is sample:
            self.report.splits[study.split].samples += 1
            return None
        if earlier != sample:
            raise ValueError(
                f"split {study.split!r}, entry {shown(study.id)}: image {shown(image)} was "
                "listed before in this split with another text; keep one of the two entries"
            )
        return REPEATED

    def _sample_id(self, study: Study, image: str) -> str:
        """The entry's id, else the image's file name, else its path: the first that is unique."""
        names = [study.id] if len(study.images) == 1 else []
        for name in [*names, image_name(image)]:
            if self.owners[study.split, name] == {image}:
                return name
        return image.removesuffix("".join(PurePosixPath(image).suffixes[-1:]))


def image_name(image: str) -> str:
    """The file name without its image suffixes: `1_IM-0001.dcm.png` -> `1_IM-0001`."""
    name = PurePosixPath(image).name
    while PurePosixPath(name).suffix.lower() in _IMAGE_SUFFIXES:
        name = PurePosixPath(name).stem
    return name


def _owners(studies: Sequence[Study]) -> dict[tuple[str, str], set[str]]:
    """(split, possible sample id) -> the images that could carry it."""
    owners: dict[tuple[str, str], set[str]] = defaultdict(set)
    for study in studies:
        for image in study.images:
            owners[study.split, image_name(image)].add(image)
            if len(study.images) == 1:
                owners[study.split, study.id].add(image)
    return owners


def problem_of(study: Study) -> str | None:
    """Why nothing of the study can be used, or None."""
    if study.problem:
        return study.problem
    if not study.report:
        return "no report text"
    if not study.images:
        return "no image left: all set aside" if study.set_aside else "no image listed"
    texts = (study.report, *study.context.values(), study.id, *study.images)
    return next((reason for text in texts if (reason := unusable_because(text))), None)
