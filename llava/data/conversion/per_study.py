"""Make one sample of a whole study: every view of it, and on request the study before it.

    entries of an annotation -> studies -> one conversation each, an <image> for every view

This is `--per-study all-views`, with `--prior`. Entries that name the same study are put together.
The counts are those of `per_image`: an entry is in a sample or skipped for a reason, and so is an
image.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llava.data.conversion.accounting import ConversionReport
from llava.data.conversion.cleaning import shown
from llava.data.conversion.output import Conversation
from llava.data.conversion.splits import SPLITS
from llava.data.conversion.study import (
    MISSING,
    REPEATED,
    Locate,
    Study,
    count_entry,
    to_conversation,
)
from llava.data.prompt import role_of


@dataclass
class _Whole:
    """The entries of one study. images: path under the root -> its role, in order."""

    name: str
    split: str
    entries: list[Study]
    report: str = ""
    context: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        return self.entries[0].subject

    @property
    def taken(self) -> str:
        return self.entries[0].taken

    def first_view(self) -> tuple[str, str]:
        """Return (path, role) of the image that represents the study when it is the prior one."""
        frontal = (pair for pair in self.images.items() if pair[1] == "Frontal")
        return next(frontal, next(iter(self.images.items())))


def convert_studies(
    studies: Iterable[Study], locate: Locate, report: ConversionReport, prior: bool = False
) -> dict[str, list[Conversation]]:
    """Return the conversations of each split, one per study; `report` counts the rest.

    prior: also show the latest earlier study of the same subject in the same split, a frontal view
    of it and its report. Raises ValueError where entries of a study contradict each other, and
    when no study has the subject and the date that `prior` needs.
    """
    usable = [whole for whole in _put_together(studies) if _use(whole, locate, report)]
    earlier = _earlier(usable) if prior else {}
    written: dict[str, list[Conversation]] = {split: [] for split in SPLITS}
    for whole in usable:
        written[whole.split].append(_conversation(whole, earlier.get((whole.split, whole.name))))
    return written


def _put_together(studies: Iterable[Study]) -> Iterator[_Whole]:
    """Yield the entries by study; one that names no study is a study of its own."""
    found: dict[tuple[str, str], _Whole] = {}
    for number, entry in enumerate(studies):
        name = entry.study or f"{entry.id}\0{number}"
        title = entry.study or entry.id
        found.setdefault((entry.split, name), _Whole(title, entry.split, [])).entries.append(entry)
    _check_names(found.values())
    return iter(found.values())


def _check_names(wholes: Iterable[_Whole]) -> None:
    seen = set()
    for whole in wholes:
        if (whole.split, whole.name) in seen:
            raise ValueError(
                f"split {whole.split!r} has two studies called {shown(whole.name)}; give every "
                "entry its study_id, or an id of its own"
            )
        seen.add((whole.split, whole.name))


def _use(whole: _Whole, locate: Locate, report: ConversionReport) -> bool:
    """Take what can be used of the entries, count all of them; return if there is a sample."""
    kept = []
    for entry in whole.entries:
        problem = count_entry(entry, report)
        if problem:
            report.skip_entry(whole.split, problem, entry.id)
        else:
            kept.append(entry)
            _agree(whole, entry)
            _locate_images(whole, entry, locate, report)
    for entry in kept:
        if whole.images:
            report.use_entry(whole.split, entry.remark, entry.id)
        else:
            report.skip_entry(whole.split, f"no image left: {MISSING}", entry.id)
    report.splits[whole.split].samples += len(whole.images)
    return bool(whole.images)


def _agree(whole: _Whole, entry: Study) -> None:
    """Add an entry's texts to its study; ValueError where they differ from the others'."""
    given = {"report": entry.report, "subject": entry.subject, "date": entry.taken, **entry.context}
    first = whole.entries[0]
    before = {"report": whole.report, "subject": first.subject, "date": first.taken}
    for name, text in given.items():
        known = (before | whole.context).get(name) or text
        if known != text:
            raise ValueError(
                f"split {whole.split!r}, entry {shown(entry.id)}: study {whole.name} has different "
                f"texts for {name!r}: {shown(known)} and {shown(text)}; keep one"
            )
    whole.report = entry.report
    whole.context |= entry.context


def _locate_images(whole: _Whole, entry: Study, locate: Locate, report: ConversionReport) -> None:
    views = entry.views or ("",) * len(entry.images)
    for image, view in zip(entry.images, views, strict=True):
        path = locate(image, entry.id)
        if path is None or path in whole.images:
            report.skip_image(whole.split, MISSING if path is None else REPEATED, image)
        else:
            whole.images[path] = role_of(view)


def _earlier(wholes: Sequence[_Whole]) -> Mapping[tuple[str, str], _Whole]:
    """Return (split, name) of a study -> the latest usable one of its subject before it."""
    by_subject: dict[tuple[str, str], list[_Whole]] = defaultdict(list)
    for whole in wholes:
        if whole.subject and whole.taken:
            by_subject[whole.split, whole.subject].append(whole)
    if wholes and not by_subject:
        raise ValueError(
            "--prior needs 'subject_id', 'study_date' and 'study_time', and no entry has them; "
            "python -m llava.data.mimic_cxr build writes them"
        )
    earlier = {}
    for group in by_subject.values():
        group.sort(key=lambda whole: whole.taken)
        before: _Whole | None = None
        for whole, following in zip(group, [*group[1:], None], strict=True):
            if before is not None:
                earlier[whole.split, whole.name] = before
            if following is not None and following.taken > whole.taken:
                before = whole
    return earlier


def _conversation(whole: _Whole, prior: _Whole | None) -> Conversation:
    images, roles = list(whole.images), list(whole.images.values())
    prior_report = None
    if prior is not None:
        path, role = prior.first_view()
        images.append(path)
        roles.append(f"Prior {role.lower()}")
        prior_report = prior.report
    return to_conversation(
        whole.name, images, whole.report, whole.context, whole.name, roles, prior_report
    )
