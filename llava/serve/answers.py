"""What a client reads: bodies, events of a stream, text that is settled, findings, audits."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fastapi.sse import format_sse_event

from llava.constants import END_OF_TEXT, IM_END
from llava.conversation import decode_answer, token_id
from llava.eval.labeler import NEGATIVE, POSITIVE, UNCERTAIN, label_report
from llava.eval.page.findings import (
    AS_POSITIVE,
    DENIED,
    INVENTED,
    MISSED,
    NO_FINDING,
    Comparison,
    compare,
)
from llava.eval.page.segments import SENTENCE, mark, sentences
from llava.writing.records import token_texts

if TYPE_CHECKING:
    from llava.serve.jobs import Finished, Job, Passed
    from llava.writing.alternatives import Fill
    from llava.writing.writer import ReportWriter

_HALF_CHARACTER = "\ufffd"
_WORST_FIRST = (INVENTED, DENIED, MISSED)
_NAMES = {MISSED: "missing", DENIED: "denied", INVENTED: "invented"}


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


def sse(name: str | None, data: Any) -> bytes:
    """One server-sent event. name: of the event, None: a plain message."""
    return format_sse_event(data_str=data if isinstance(data, str) else to_json(data), event=name)


def to_json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def log_probability(share: float) -> float:
    """Of a share of the softmax; the smallest share that fp32 holds for one that is rounded to 0.
    Six digits: more are noise of the batch."""
    return round(math.log(max(share, 1e-38)), 6)


class Answers:
    """Answers of one model. model: the name that clients know it by."""

    def __init__(self, writer: ReportWriter, model: str) -> None:
        self.writer, self.tokenizer, self.model = writer, writer.tokenizer, model
        self.ends = {token_id(self.tokenizer, name) for name in (IM_END, END_OF_TEXT)}
        self.token_text = lru_cache(maxsize=1 << 16)(self._token_text)

    def report(self, name: str, job: Job, finished: Finished, seconds: float) -> dict[str, Any]:
        """The body of /v1/reports."""
        report = finished.report
        body = {
            "id": name,
            "model": self.model,
            "text": report.text,
            "tokens": self.tokens(finished),
            "findings": findings_of(report.text),
            "ended": report.ended,
            "passes": report.nfe,
            "seconds": round(seconds, 3),
        }
        if job.prepared.plan.infills:
            body["gaps"] = [_gap(fills) for fills in finished.fills]
        return body

    def tokens(self, finished: Finished) -> list[dict[str, Any]]:
        report = finished.report
        given = report.given or [False] * len(report.token_ids)
        return [
            {"text": text, "log_probability": log_probability(share), "pass": at, "given": own}
            for text, share, at, own in zip(
                token_texts(report.token_ids, self.tokenizer),
                report.confidence,
                report.decided_at,
                given,
                strict=True,
            )
        ]

    def passed(self, event: Passed, job: Job) -> dict[str, Any]:
        """The data of a `pass` event: every position of the canvas up to the end of the text."""
        end = self._end(event)
        tokens = [
            {"text": self.token_text(token), "log_probability": log_probability(share)}
            if at >= 0
            else {"text": None, "log_probability": None}
            for token, share, at in zip(event.ids, event.confidence, event.decided_at, strict=True)
        ]
        return {"pass": event.nfe, "tokens": tokens[:end], "text": self.settled(event, job)}

    def settled(self, event: Passed, job: Job) -> str:
        """The text from the left that no later pass changes; at the end it is the report."""
        end, sampling = self._end(event), job.plan.sampling
        first = next((i for i, at in enumerate(event.decided_at[:end]) if at < 0), end)
        if first < end and sampling.revoke is not None:
            first -= first % sampling.block_length
        text, ended = decode_answer(event.ids[:first], self.tokenizer)
        if not ended and first < len(event.ids):
            text = text.rstrip(_HALF_CHARACTER)
        return self._before_stop(text, sampling.stop, ended or first == len(event.ids))

    def _before_stop(self, text: str, stops: Sequence[str], whole: bool) -> str:
        """Up to the first stop string, or to where one might be beginning."""
        found = [place for stop in stops if (place := text.find(stop)) >= 0]
        if found:
            return text[: min(found)].rstrip()
        held = 0 if whole or not stops else max(map(len, stops)) - 1
        return text[: len(text) - held].rstrip()

    def _end(self, event: Passed) -> int:
        """Positions up to the first decided end token, itself included."""
        pairs = enumerate(zip(event.ids, event.decided_at, strict=True))
        ended = (i + 1 for i, (token, at) in pairs if at >= 0 and token in self.ends)
        return next(ended, len(event.ids))

    def _token_text(self, token: int) -> str:
        return self.tokenizer.decode([token], clean_up_tokenization_spaces=False)


def _gap(fills: Sequence[Fill]) -> dict[str, Any]:
    best, *others = (
        {"text": fill.text, "log_probability": round(fill.log_probability, 6)} for fill in fills
    )
    return {**best, "alternatives": others}


def findings_of(text: str) -> dict[str, list[str]]:
    """The findings that a report states, denies and leaves open."""
    labels = label_report(text)
    kinds = {"present": POSITIVE, "absent": NEGATIVE, "uncertain": UNCERTAIN}
    return {
        kind: [name for name, value in labels.items() if value == wanted and name != NO_FINDING]
        for kind, wanted in kinds.items()
    }


def audit(text: str, reference: str) -> dict[str, Any]:
    """What a typed draft says differently from `reference`, the model's report.

    missing: the reference states it, the draft does not mention it; denied: the draft says the
    opposite; invented: the draft alone states it. Every sentence of both has its mark.
    """
    comparison = compare(reference, text, AS_POSITIVE)
    verdicts = {name: kind for name, kind in comparison.verdicts.items() if name != NO_FINDING}
    lists = {
        word: [name for name, kind in verdicts.items() if kind == found]
        for found, word in _NAMES.items()
    }
    return {
        **lists,
        "sentences": _marked(text, comparison),
        "reference_sentences": _marked(reference, comparison),
    }


def _marked(text: str, comparison: Comparison) -> list[dict[str, Any]]:
    """Every sentence with its mark; one that mentions no finding has none."""
    mentioning = {sentence.span: sentence for sentence in sentences(text)}
    found = []
    for match in SENTENCE.finditer(text):
        word, names = "none", []
        if sentence := mentioning.get(match.span()):
            kind, errors = mark(sentence, comparison)
            kinds = [error for error, _ in errors]
            worst = next((_NAMES[error] for error in _WORST_FIRST if error in kinds), None)
            word = worst or ("agrees" if kind == "agree" else "none")
            names = [name for _, name in errors] or [name for name, _ in sentence.mentions]
        found.append({"text": match[0], "mark": word, "findings": names})
    return found
