"""Word-overlap metrics: BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr."""

from llava.eval.nlg.scores import (
    METRICS,
    PROTOCOLS,
    R2GEN,
    RAW,
    CorpusScore,
    measure,
    r2gen_clean,
    score,
    score_corpus,
    score_pairs,
    simple_tokenize,
)

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "R2GEN",
    "RAW",
    "CorpusScore",
    "measure",
    "r2gen_clean",
    "score",
    "score_corpus",
    "score_pairs",
    "simple_tokenize",
]
