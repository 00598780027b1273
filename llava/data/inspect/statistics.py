"""Summarise a dataset in numbers: lengths, labels, phrases, and what two splits share.

`command` prints them. Everything is counted over entries (samples), as training will see them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from llava.constants import IMAGE_PLACEHOLDER
from llava.data.samples.entry import Entry

TokenCounts = Callable[[Sequence[str]], list[int]]
"""Texts -> how many tokens each has."""

Label = Callable[[str], Mapping[str, int | None]]
"""A report -> finding: 1 stated, 0 denied, -1 uncertain, None not mentioned."""

PATIENT = re.compile(r"(?:^|/)(p\d{8}|patient\d+)/")
"""The patient in a path of MIMIC-CXR (p10/p10000032/...) or CheXpert (train/patient42142/...)."""

COMPARING = re.compile(
    r"\b(?:compar(?:ed|ison|able)|prior|previous(?:ly)?|interval|unchanged|stable|again|persist\w*"
    r"|new(?:ly)?|increas(?:ed|ing)|decreas(?:ed|ing)|improv(?:ed|ing|ement)|worsen(?:ed|ing)"
    r"|resol(?:ved|ution)|since)\b",
    re.IGNORECASE,
)
"""Words that speak of an earlier examination, which a model that sees one image cannot know."""

_BATCH = 1000


@dataclass
class Summary:
    """One dataset. answer_tokens: with the end-of-turn token; question_tokens: the text alone.

    labels: (finding, value) -> entries. phrases: word -> entries whose report has it.
    """

    entries: int = 0
    images: Counter[int] = field(default_factory=Counter)
    patients: set[str] = field(default_factory=set)
    without_patient: int = 0
    answer_tokens: list[int] = field(default_factory=list)
    question_tokens: list[int] = field(default_factory=list)
    labels: Counter[tuple[str, int]] = field(default_factory=Counter)
    phrases: Counter[str] = field(default_factory=Counter)
    comparing: int = 0
    paths: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)

    def exceeding(self, canvas: int) -> int:
        """Answers that do not fit on a canvas with their end token."""
        return sum(length > canvas for length in self.answer_tokens)


def summarise(entries: Sequence[Entry], count_tokens: TokenCounts, label: Label) -> Summary:
    """Read every entry once; of several turns, all questions and all answers."""
    summary = Summary()
    for chunk in _chunks(entries):
        answers = [_said(entry, "gpt") for entry in chunk]
        questions = [_said(entry, "human").replace(IMAGE_PLACEHOLDER, "") for entry in chunk]
        summary.answer_tokens += [n + 1 for n in count_tokens(answers)]
        summary.question_tokens += count_tokens(questions)
        for entry, answer in zip(chunk, answers, strict=True):
            _add(summary, entry, answer)
    for answer, times in summary.answers.items():
        for finding, value in label(answer).items():
            if value is not None:
                summary.labels[finding, value] += times
    return summary


def histogram(values: Sequence[int], width: int = 16, bar: int = 40) -> list[str]:
    """Return lines with the quantiles, and a bar for each range of `width` values."""
    if not values:
        return ["  nothing"]
    ordered = sorted(values)
    quantiles = {q: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.5, 0.9, 0.99)}
    shown = ", ".join(f"{q:.0%}: {value}" for q, value in quantiles.items())
    lines = [f"  smallest {ordered[0]}, {shown}, largest {ordered[-1]}"]
    bins = Counter(value // width for value in values)
    most = max(bins.values())
    for index in range(min(bins), min(max(bins), min(bins) + 15) + 1):
        count = bins[index]
        filled = "#" * round(bar * count / most)
        lines.append(f"  {index * width:5d}-{(index + 1) * width - 1:<5d} {count:8d} {filled}")
    beyond = sum(count for index, count in bins.items() if index > min(bins) + 15)
    return [*lines, f"  beyond      {beyond:8d}"] if beyond else lines


def shared(one: Summary, other: Summary) -> dict[str, list[str]]:
    """Return what two datasets share: patients and images (each an error), and answers."""
    return {
        "patients": sorted(one.patients & other.patients),
        "images": sorted(one.paths & other.paths),
        "answers": sorted(one.answers.keys() & other.answers.keys()),
    }


def _add(summary: Summary, entry: Entry, answer: str) -> None:
    summary.entries += 1
    summary.images[len(entry.images)] += 1
    found = {match[1] for image in entry.images if (match := PATIENT.search(image))}
    summary.patients |= found
    summary.without_patient += not found
    summary.paths.update(entry.images)
    summary.answers[answer] += 1
    words = {word.lower() for word in COMPARING.findall(answer)}
    summary.phrases.update(words)
    summary.comparing += bool(words)


def _said(entry: Entry, who: str) -> str:
    return "\n".join(m["value"] for m in entry.messages if m["from"] == who).strip()


def _chunks(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    remaining = iter(entries)
    while chunk := list(islice(remaining, _BATCH)):
        yield chunk
