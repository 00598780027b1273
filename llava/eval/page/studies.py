"""One report with everything that the page says about it, and its form as JSON for the script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llava.eval.metrics.health import compares, comparison_given
from llava.eval.page.figures import Statement, statements
from llava.eval.page.findings import STATES, Comparison, compare
from llava.eval.page.images import Embedded
from llava.eval.page.run import Run, context_fields, image_roles
from llava.eval.page.segments import (
    Sentence,
    TokenPlaces,
    cut,
    mark,
    place_tokens,
    sentences,
)
from llava.eval.predictions import Prediction

FLAGS = ("empty", "not ended", "invented comparison")
"""What can be wrong with a generated text as a text."""


@dataclass(frozen=True)
class Study:
    """places: where the tokens stand in the generated text; None without usable tokens.

    block_length: the tokens that were decoded together, 0 where the run does not say.
    """

    prediction: Prediction
    split: str
    comparison: Comparison
    reference_sentences: Sequence[Sentence]
    generated_sentences: Sequence[Sentence]
    places: TokenPlaces | None
    block_length: int = 0

    def statements(self, policy: str) -> list[Statement]:
        """What its generated sentences state, for the plot of confidence."""
        if self.places is None:
            return []
        confidence = self.prediction.confidence
        return statements(
            self.comparison, self.generated_sentences, self.places, confidence, policy
        )


def studies_of(run: Run, policy: str) -> list[Study]:
    block_length = run.block_length
    return [
        Study(
            prediction=prediction,
            split=split,
            comparison=compare(prediction.reference, prediction.prediction, policy),
            reference_sentences=sentences(prediction.reference),
            generated_sentences=sentences(prediction.prediction),
            places=place_tokens(prediction),
            block_length=0 if prediction.drafts else block_length,
        )
        for prediction, split in zip(run.predictions, run.splits, strict=True)
    ]


def flags(prediction: Prediction) -> list[str]:
    """Which of FLAGS hold. What the run did not record (tokens, context) cannot be wrong."""
    text, context = prediction.prediction, prediction.context
    holds = (
        not text.strip(),
        bool(prediction.tokens) and not prediction.ended,
        bool(context) and not comparison_given(context) and compares(text),
    )
    return [flag for flag, held in zip(FLAGS, holds, strict=True) if held]


def record(study: Study, images: Sequence[Embedded], urls: list[str]) -> dict[str, Any]:
    """What the script needs. The data URLs go to the end of `urls`; the record has their places."""
    prediction, comparison = study.prediction, study.comparison
    pictures = []
    for image, role in zip(images, image_roles(prediction.context, len(images)), strict=True):
        place = {"problem": image.problem, "url": len(urls)}
        pictures.append({"path": image.path, "role": role, **place})
        if image.url:
            urls.append(image.url)
    return {
        "id": prediction.id,
        "study": prediction.study_id,
        "split": study.split,
        "context": context_fields(prediction.context),
        "images": pictures,
        "flags": flags(prediction),
        "reference": _text(prediction.reference, study.reference_sentences, study, None),
        "generated": _text(prediction.prediction, study.generated_sentences, study, study.places),
        "findings": [
            (name, STATES[state], STATES[comparison.generated[name]], comparison.verdicts.get(name))
            for name, state in comparison.reference.items()
            if not state is comparison.generated[name] is None
        ],
        "errors": comparison.errors,
        "tokens": _tokens(study),
        "tokenProblem": None if study.places else _token_problem(prediction),
    }


def _text(
    text: str, found: Sequence[Sentence], study: Study, places: TokenPlaces | None
) -> dict[str, Any]:
    marks = [mark(sentence, study.comparison) for sentence in found]
    return {
        "runs": list(cut(text, found, places)),
        "sentences": [{"tone": tone, "errors": errors} for tone, errors in marks],
    }


def _token_problem(prediction: Prediction) -> str:
    if prediction.tokens:
        return "The tokens of this report do not spell its text: no confidence and no replay."
    return "This run did not record the tokens of this report: no confidence and no replay."


def _tokens(study: Study) -> dict[str, Any] | None:
    """confidence in per cent, rounded down, so that 100 means that it was 1.

    drafts: [text, accepted] of each draft that each pass checked; empty without speculation.
    """
    if study.places is None:
        return None
    prediction = study.prediction
    confidence = [int(100 * min(share, 1)) for share in prediction.confidence]
    passes = max(prediction.nfe, max(prediction.decided_at) + 1)
    return {
        "confidence": confidence,
        "at": prediction.decided_at,
        "passes": passes,
        "mean": sum(prediction.confidence) / len(confidence),
        "tail": [(prediction.tokens[index], index) for index in study.places.tail],
        "drafts": [_checked(prediction, index) for index in range(len(prediction.drafts))],
        "block": study.block_length,
    }


def _checked(prediction: Prediction, index: int) -> list[tuple[str, bool]]:
    """The drafts of a pass and whether it accepted them.

    The tokens of a pass begin with the drafts that it accepted; the causal reading's own follow.
    """
    written = [
        text
        for text, at in zip(prediction.tokens, prediction.decided_at, strict=True)
        if at == index
    ]
    drafts = prediction.drafts[index]
    accepted = [drafts[: n + 1] == tuple(written[: n + 1]) for n in range(len(drafts))]
    return list(zip(drafts, accepted, strict=True))
