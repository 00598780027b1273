"""The one shape of a study, between the reader of a collection and the samples made of it.

    source files -> a collection's reader -> Study -> per_image or per_study -> output

Every collection has a reader that yields `Study` objects, their texts already clean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from llava.data.conversion.accounting import ConversionReport
from llava.data.conversion.cleaning import unusable_because
from llava.data.conversion.output import Conversation
from llava.data.prompt import context_fields, human_turn

PER_STUDY = ("all", "first", "all-views")
"""--per-study: samples for all images or the first one (`per_image`), or one with all of them."""
MISSING = "file not found under the image root"
NOT_FIRST = "not the first of its study (--per-study first)"
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
    study: what the images of one examination share, the entry's id where empty.
    problem: why the reader cannot use this entry at all; None when it can.
    remark: what is to be known about an entry that is used; "" for nothing.
    set_aside: images of the entry that the reader leaves out, each with its reason.
    subject: the patient. views: view position of each image, "" where unknown, and taken: when, as
    text that sorts by time; both for `per_study`.
    """

    id: str
    split: str
    images: tuple[str, ...]
    report: str
    context: Mapping[str, str] = field(default_factory=dict)
    study: str = ""
    problem: str | None = None
    remark: str = ""
    set_aside: tuple[tuple[str, str], ...] = ()
    subject: str = ""
    views: tuple[str, ...] = ()
    taken: str = ""


def to_conversation(
    sample_id: str,
    images: str | Sequence[str],
    report: str,
    context: Mapping[str, str | None],
    study_id: str = "",
    roles: Sequence[str] = (),
    prior_report: str | None = None,
) -> Conversation:
    """Return one sample in the form that the written files hold.

    images: a path, or several with as many roles. study_id: `sample_id` where empty. The context
    is in the question, and next to it by field, so that no reader takes the question apart.
    """
    return {
        "id": sample_id,
        "image": images if isinstance(images, str) else list(images),
        "study_id": study_id or sample_id,
        "context": dict(context_fields(context, prior_report)),
        "conversations": [
            {"from": "human", "value": human_turn(context, roles, prior_report)},
            {"from": "gpt", "value": report},
        ],
    }


def image_name(image: str) -> str:
    """Return the file name without its image suffixes: `1_IM-0001.dcm.png` -> `1_IM-0001`."""
    name = PurePosixPath(image).name
    while PurePosixPath(name).suffix.lower() in _IMAGE_SUFFIXES:
        name = PurePosixPath(name).stem
    return name


def count_entry(study: Study, report: ConversionReport) -> str | None:
    """Count an entry and its images; return why nothing of it can be used, or None."""
    counts = report.splits[study.split]
    counts.entries += 1
    counts.images += len(study.images) + len(study.set_aside)
    for image, reason in study.set_aside:
        report.skip_image(study.split, reason, image)
    problem = _problem_of(study)
    for image in study.images if problem else ():
        report.skip_image(study.split, IN_SKIPPED_ENTRY, image)
    return problem


def _problem_of(study: Study) -> str | None:
    if study.problem:
        return study.problem
    if not study.report:
        return "no report text"
    if not study.images:
        return "no image left: all set aside" if study.set_aside else "no image listed"
    texts = (study.report, *study.context.values(), study.id, study.study, *study.images)
    return next((reason for text in texts if (reason := unusable_because(text))), None)
