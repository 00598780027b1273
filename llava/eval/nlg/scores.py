"""Word-overlap metrics of a corpus of reports: BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr.

    references, hypotheses -> protocol's text, tokenised once -> statistics per sample -> values

The same reports score differently under different protocols, so a value always goes with one:

- `raw`: the text as written, in the words of the Penn Treebank tokeniser (`java`), lower-cased and
  without punctuation; without Java a plainer tokenisation is used, and `tokenizer` says so.
- `r2gen`: the text as R2Gen cleans MIMIC-CXR reports, split at white space, each sentence ending in
  the word ".". Its two errors are left out: references are not cut to a length, and the character
  range that was meant as a list takes no letters.
- `r2gen-cut`: the same with the references cut to their first 100 words, as the tables published
  with R2Gen's code have them. A report that says more than its cut reference gains nothing by it,
  so values of this protocol compare with those tables and with nothing else.
- `rexrank`: the words of the ReXrank leaderboard, lower-cased and split at spaces, full stops being
  words; it holds the leaderboard's BLEU-2 only, a mean over reports.

All values are fractions except CIDEr, which is 10 for a perfect match. BLEU and METEOR pool their
counts over the corpus, ROUGE-L, CIDEr and `rexrank` are means over samples; CIDEr weighs words by
how rare they are among the references, so that a corpus of one report scores 0.
"""

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np

from llava.eval.metrics.significance import Additive
from llava.eval.nlg import java
from llava.eval.nlg.cider import cider
from llava.eval.nlg.ngrams import count_pairs
from llava.eval.nlg.overlap import bleu, meteor, rouge_l, sentence_bleu_2

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
RAW, R2GEN, R2GEN_CUT, REXRANK = "raw", "r2gen", "r2gen-cut", "rexrank"
PROTOCOLS = (RAW, R2GEN, R2GEN_CUT, REXRANK)
R2GEN_LENGTH = 100
"""Words of a reference that `r2gen-cut` keeps."""
PTB, SIMPLE, SPACES = "ptb", "simple", "white space"

_WORD = re.compile(r"\d+(?:[.,/]\d+)+|\w+(?:-\w+)*")
_ENUMERATION = re.compile(r"(?:^|(?<=\s))\d{1,2}\. ")
_SENTENCE_END = re.compile(r"\.+ ")
_R2GEN_DROPPED = re.compile(r"""[.,?;*!%^&_+():<=>@\[\]{}"'/\\]""")
"""The characters that R2Gen removes from lower-cased text. A hyphen is not among them: its pattern
has one, but between two characters, where it makes a range."""


@dataclass(frozen=True)
class Measured:
    """The statistics of `n` pairs under one protocol.

    metrics: in the order of METRICS, without those in `unavailable` (metric -> reason and remedy).
    n_empty: hypotheses without any word; they count in `n` and score 0.
    """

    metrics: dict[str, Additive]
    n: int
    n_empty: int
    tokenizer: str
    unavailable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CorpusScore:
    """The values of a `Measured`; the fields are its."""

    metrics: dict[str, float]
    n: int
    n_empty: int
    tokenizer: str
    unavailable: dict[str, str] = field(default_factory=dict)


def score(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """The `raw` values. A missing Java is announced by a UserWarning and METEOR is left out."""
    result = score_corpus(references, hypotheses)
    for metric, reason in result.unavailable.items():
        warnings.warn(
            f"{metric} is unavailable and the other metrics use the tokenisation "
            f"`{result.tokenizer}`: {reason}",
            stacklevel=2,
        )
    return result.metrics


def score_corpus(references: Sequence[str], hypotheses: Sequence[str]) -> CorpusScore:
    """Score hypothesis i against reference i under `raw`; to the last bit in any order of them.

    Raises ValueError when there is nothing to score, the lengths differ or a text is not a string.
    """
    measured = measure(references, hypotheses, (RAW,))[RAW]
    values = {name: metric.value() for name, metric in measured.metrics.items()}
    assert all(map(math.isfinite, values.values())), values
    return CorpusScore(
        values, measured.n, measured.n_empty, measured.tokenizer, measured.unavailable
    )


@lru_cache(maxsize=1)
def score_pairs(pairs: tuple[tuple[str, str], ...]) -> CorpusScore:
    """`score_corpus` of (reference, hypothesis) pairs; asked again for the same, it remembers.

    lmms-eval asks for one metric at a time and would have the corpus scored once for each.
    """
    return score_corpus(*zip(*pairs, strict=True))


def measure(
    references: Sequence[str],
    hypotheses: Sequence[str],
    protocols: Sequence[str] = PROTOCOLS,
    progress: Callable[[str], None] = lambda step: None,
) -> dict[str, Measured]:
    """The statistics of every sample, in the order given, under each protocol.

    progress: called with the name of each step that ends. METEOR, the longest, runs in parallel
    with the rest. Raises ValueError as `score_corpus`.
    """
    _check(references, hypotheses)
    runtime = java.find_java()
    # A fixed order of the pairs, so that no sum depends on the order they came in.
    order = sorted(range(len(references)), key=lambda i: (references[i], hypotheses[i]))
    texts = [side[i] for side in (references, hypotheses) for i in order]
    back = np.argsort(order)
    tokens = {name: _Tokens.of(texts, name, runtime) for name in protocols}
    progress("tokenised")
    with ThreadPoolExecutor(1) as pool:
        by_meteor = {name: part for name, part in tokens.items() if name != REXRANK}
        job = pool.submit(_meteor, runtime, by_meteor)
        found = {}
        for name in protocols:
            # Where no reference is cut, both protocols of R2Gen have the same texts.
            same = name == R2GEN_CUT and tokens[name] == tokens.get(R2GEN)
            found[name] = dict(found[R2GEN]) if same else _overlap(name, tokens[name])
            progress(f"{name}: {', '.join(found[name])}")
        for name, metric in job.result().items():
            found[name]["METEOR"] = metric
    progress("METEOR" if runtime else "METEOR left out")
    return {name: _measured(found[name], tokens[name], back, runtime) for name in protocols}


def r2gen_clean(text: str) -> str:
    """A report as R2Gen's cleaning of MIMIC-CXR gives it: lower-cased sentences, each ending " .".

    Marks of de-identification, enumerations ("2. ") and the characters of `_R2GEN_DROPPED` go.
    """
    flat = " ".join(text.lower().split())
    sentences = _SENTENCE_END.split(_ENUMERATION.sub("", flat))
    kept = [" ".join(_R2GEN_DROPPED.sub("", sentence).split()) for sentence in sentences]
    return "".join(f" {sentence} ." for sentence in kept if sentence).strip()


def rexrank_words(text: str) -> str:
    """Lower-cased words joined by single spaces, a full stop being one of them.

    Split at spaces only, as the leaderboard does: a line break stays inside its word.
    """
    return " ".join(word for word in text.lower().replace(".", " .").split(" ") if word)


def simple_tokenize(text: str) -> str:
    """Lower-cased words joined by single spaces; punctuation is dropped.

    A word is a run of letters and digits, hyphens inside it included, or a number such as 3.5.
    """
    return " ".join(_WORD.findall(text.lower()))


@dataclass(frozen=True)
class _Tokens:
    """Tokenised pairs, words joined by spaces."""

    gold: list[str]
    said: list[str]
    tokenizer: str

    @classmethod
    def of(cls, texts: Sequence[str], protocol: str, runtime: Path | None) -> "_Tokens":
        """texts: all references, then all hypotheses."""
        half = len(texts) // 2
        if protocol in (R2GEN, R2GEN_CUT):
            words, tokenizer = [r2gen_clean(text) for text in texts], SPACES
            if protocol == R2GEN_CUT:
                words[:half] = [_first_words(text, R2GEN_LENGTH) for text in words[:half]]
        elif protocol == REXRANK:
            words, tokenizer = [rexrank_words(text) for text in texts], SPACES
        elif runtime:
            words, tokenizer = java.tokenize(runtime, texts), PTB
        else:
            words, tokenizer = [simple_tokenize(text) for text in texts], SIMPLE
        return cls(words[:half], words[half:], tokenizer)


def _first_words(text: str, n: int) -> str:
    return " ".join(text.split(" ")[:n])


def _overlap(protocol: str, tokens: _Tokens) -> dict[str, Additive]:
    gold, said = tokens.gold, tokens.said
    if protocol == REXRANK:
        return {"BLEU-2": sentence_bleu_2(gold, said)}
    pairs = count_pairs(gold, said)
    return {**bleu(pairs), "ROUGE-L": rouge_l(gold, said), "CIDEr": cider(pairs)}


def _meteor(runtime: Path | None, parts: Mapping[str, _Tokens]) -> dict[str, Additive]:
    """By protocol, each distinct pair of all protocols counted once; empty without Java."""
    if not runtime:
        return {}
    pairs = {name: list(zip(part.gold, part.said, strict=True)) for name, part in parts.items()}
    place = {pair: i for i, pair in enumerate(dict.fromkeys(chain.from_iterable(pairs.values())))}
    metric = meteor(runtime, *zip(*place, strict=True))
    return {name: metric.take(np.array([place[p] for p in own])) for name, own in pairs.items()}


def _measured(
    metrics: dict[str, Additive], tokens: _Tokens, back: np.ndarray, runtime: Path | None
) -> Measured:
    lacks_meteor = runtime is None and "ROUGE-L" in metrics
    ordered: dict[str, Additive] = {}
    for name, metric in metrics.items():
        first = next((other for other in metrics if metrics[other].rows is metric.rows), name)
        # The four BLEUs share their rows, and go on doing so.
        same = first in ordered
        ordered[name] = replace(metric, rows=ordered[first].rows) if same else metric.take(back)
    return Measured(
        metrics={name: ordered[name] for name in METRICS if name in ordered},
        n=len(tokens.said),
        n_empty=sum(not text for text in tokens.said),
        tokenizer=tokens.tokenizer,
        unavailable={"METEOR": f"no Java was found; {java.REMEDY}"} if lacks_meteor else {},
    )


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
