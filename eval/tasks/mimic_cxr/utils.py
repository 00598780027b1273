"""Functions that lmms-eval calls by name from the YAML files here; `llava.eval.nlg` does the work.

    document -> question and images -> (model) -> (reference, prediction) -> one score per metric

The values are those of the protocol `raw`. All metrics are of the whole corpus: each sample
contributes its pair to every metric, and the first aggregation scores them all at once.
"""

from collections.abc import Sequence

from llava.eval import nlg

Pair = tuple[str, str]


def doc_to_visual(doc: dict) -> list[str]:
    return doc["images"]


def doc_to_text(doc: dict) -> str:
    return doc["prompt"]


def doc_to_target(doc: dict) -> str:
    return doc["reference"]


def count_result(doc: dict, results: Sequence[str]) -> dict[str, int]:
    return {"scored": len(results)}


def process_results(doc: dict, results: Sequence[str]) -> dict[str, Pair]:
    pair = (doc["reference"], results[0])
    return dict.fromkeys((*nlg.METRICS, "scored", "empty"), pair)


def bleu_1(pairs: Sequence[Pair]) -> float:
    return _metric("BLEU-1", pairs)


def bleu_2(pairs: Sequence[Pair]) -> float:
    return _metric("BLEU-2", pairs)


def bleu_3(pairs: Sequence[Pair]) -> float:
    return _metric("BLEU-3", pairs)


def bleu_4(pairs: Sequence[Pair]) -> float:
    return _metric("BLEU-4", pairs)


def meteor(pairs: Sequence[Pair]) -> float | None:
    """None without Java."""
    return _metric("METEOR", pairs)


def rouge_l(pairs: Sequence[Pair]) -> float:
    return _metric("ROUGE-L", pairs)


def cider(pairs: Sequence[Pair]) -> float:
    return _metric("CIDEr", pairs)


def scored(results: Sequence) -> int:
    return len(results)


def empty(pairs: Sequence[Pair]) -> int:
    """How many predictions hold no word."""
    return nlg.score_pairs(tuple(pairs)).n_empty


def _metric(name: str, pairs: Sequence[Pair]) -> float | None:
    return nlg.score_pairs(tuple(pairs)).metrics.get(name)
