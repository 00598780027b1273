"""Word-overlap metrics of a corpus of reports: BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr.

    references, hypotheses -> tokenised once -> pycocoevalcap's metrics -> CorpusScore

All values are fractions except CIDEr, which is 10 for a perfect match. BLEU and METEOR pool their
counts over the corpus, ROUGE-L and CIDEr are means over samples; CIDEr weighs words by how rare
they are among the references, so that a corpus of one report scores 0. The words are those of the
Penn Treebank tokeniser (`java`); without Java a plainer tokenisation stands in, which shifts
the values: `CorpusScore.tokenizer` says which it was.
"""

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from llava.eval import java

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
PTB = "ptb"
SIMPLE = "simple"

_WORD = re.compile(r"\d+(?:[.,/]\d+)+|\w+(?:-\w+)*")


@dataclass(frozen=True)
class CorpusScore:
    """The metrics of `n` pairs, and how they were obtained.

    metrics: in the order of METRICS, without those in `unavailable` (metric -> reason and remedy).
    n_empty: hypotheses without any word; they count in `n` and score 0.
    tokenizer: `ptb`, or `simple` (see `simple_tokenize`) where there is no Java.
    """

    metrics: dict[str, float]
    n: int
    n_empty: int
    tokenizer: str
    unavailable: dict[str, str] = field(default_factory=dict)


def score(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """The metrics alone. A missing Java is announced by a UserWarning and METEOR is left out."""
    result = score_corpus(references, hypotheses)
    for metric, reason in result.unavailable.items():
        warnings.warn(
            f"{metric} is unavailable and the other metrics use the tokenisation "
            f"`{result.tokenizer}`: {reason}",
            stacklevel=2,
        )
    return result.metrics


def score_corpus(references: Sequence[str], hypotheses: Sequence[str]) -> CorpusScore:
    """Score hypothesis i against reference i, for all i; to the last bit in any order of the pairs.

    Raises ValueError when there is nothing to score, the lengths differ or a text is not a string.
    """
    _check(references, hypotheses)
    runtime = java.find_java()
    pairs = sorted(zip(references, hypotheses, strict=True))
    tokens = _tokenize(runtime, [text for side in zip(*pairs, strict=True) for text in side])
    gold, said = tokens[: len(pairs)], tokens[len(pairs) :]
    values = _overlap(gold, said)
    if runtime:
        values["METEOR"] = java.meteor(runtime, gold, said) if any(said) else 0.0
    assert all(map(math.isfinite, values.values())), values
    return CorpusScore(
        metrics={name: float(values[name]) for name in METRICS if name in values},
        n=len(said),
        n_empty=sum(not text for text in said),
        tokenizer=PTB if runtime else SIMPLE,
        unavailable={} if runtime else {"METEOR": f"no Java was found; {java.REMEDY}"},
    )


@lru_cache(maxsize=1)
def score_pairs(pairs: tuple[tuple[str, str], ...]) -> CorpusScore:
    """`score_corpus` of (reference, hypothesis) pairs; asked again for the same, it remembers.

    lmms-eval asks for one metric at a time and would have the corpus scored once for each.
    """
    return score_corpus(*zip(*pairs, strict=True))


def simple_tokenize(text: str) -> str:
    """Lower-cased words joined by single spaces; punctuation is dropped.

    A word is a run of letters and digits, hyphens inside it included, or a number such as 3.5.
    """
    return " ".join(_WORD.findall(text.lower()))


def _tokenize(runtime: Path | None, texts: list[str]) -> list[str]:
    if runtime:
        return java.tokenize(runtime, texts)
    return [simple_tokenize(text) for text in texts]


def _check(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if len(references) != len(hypotheses):
        raise ValueError(
            f"{len(references)} references but {len(hypotheses)} hypotheses; "
            "give exactly one hypothesis for each reference"
        )
    if not references:
        raise ValueError("there is nothing to score: the references are empty")
    for name, texts in (("reference", references), ("hypothesis", hypotheses)):
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"{name} {index} is {text!r}; give a text (may be empty)")


def _overlap(references: list[str], hypotheses: list[str]) -> dict[str, float]:
    """BLEU, ROUGE-L and CIDEr of tokenised texts."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    gold = {index: [text] for index, text in enumerate(references)}
    said = {index: [text] for index, text in enumerate(hypotheses)}
    bleu, _ = Bleu(4).compute_score(gold, said, verbose=0)
    cider = Cider().compute_score(gold, said)[0] if any(references) else 0.0
    values = {f"BLEU-{order}": value for order, value in enumerate(bleu, start=1)}
    return {**values, "ROUGE-L": _rouge_l(references, hypotheses), "CIDEr": cider}


def _rouge_l(references: list[str], hypotheses: list[str]) -> float:
    """Mean over the pairs. An empty hypothesis scores 0, even against an empty reference."""
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    pairs = zip(references, hypotheses, strict=True)
    return sum(rouge.calc_score([said], [gold]) for gold, said in pairs if said) / len(references)
