"""The health of generated text: each count moves with the fault it is named after."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.metrics.health import (
    compares,
    comparison_given,
    health_metrics,
    near_duplicates,
    repetition,
    text_health,
    warnings_of,
)
from llava.eval.metrics.significance import intervals
from llava.eval.predictions import Prediction

NORMAL = "The lungs are clear. No pleural effusion or pneumothorax."


def record(prediction=NORMAL, reference=NORMAL, context="Describe.", ended=True):
    tokens = (prediction, "<|im_end|>")
    return Prediction("a", prediction, reference, context=context, ended=ended, tokens=tokens)


def health(*records, gen_length=64, lengths=None):
    return text_health(records, gen_length, lengths)


def test_a_sound_run_shows_no_fault():
    found = health(record(), record(), lengths=[12, 12])
    assert (found.n, found.empty, found.truncated, found.invented_comparisons) == (2, 0, 0, 0)
    assert (found.repetition, found.length_ratio, found.references_longer) == (0.0, 1.0, 0.0)
    assert not found.unavailable


def test_empty_and_truncated_reports_are_counted():
    found = health(record(prediction=" \n"), record(ended=False), record())
    assert (found.empty, found.truncated) == (1, 1)


def test_repetition_is_the_share_of_four_grams_said_before():
    assert repetition("one two three four five six") == 0.0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("No effusion.") is None
    loop = "no pleural effusion is seen. " * 10
    assert health(record(prediction=loop), record()).repetition > 0.4
    assert health(record(reference=loop), record()).reference_repetition > 0.4


def test_length_ratio_is_words_over_words():
    assert health(record("one two", "one two three four")).length_ratio == 0.5


def test_a_reference_that_does_not_fit_the_canvas_is_counted():
    assert health(record(), record(), gen_length=16, lengths=[16, 17]).references_longer == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "Compared to the prior study, no change.",
        "Interval increase in the left effusion.",
        "Stable cardiomegaly.",
        "The effusion has resolved.",
        "Sternotomy wires are again seen.",
        "Unchanged since the previous radiograph.",
        "The opacity is no longer present.",
    ],
)
def test_a_comparison_without_one_given_is_invented(text):
    assert compares(text)
    assert health(record(prediction=text)).invented_comparisons == 1
    given = record(prediction=text, context="Describe. Comparison: Chest radiograph of May.")
    assert health(given).invented_comparisons == 0
    assert health(given).without_comparison == 0


@pytest.mark.parametrize(
    "text",
    [
        NORMAL,
        "No prior studies are available for comparison.",
        "No comparison available. The lungs are clear.",
        "Without prior chest radiographs, chronicity is unknown.",
    ],
)
def test_saying_that_there_is_no_prior_study_is_no_comparison(text):
    assert not compares(text)


@pytest.mark.parametrize(
    ("context", "given"),
    [
        ("Describe. Indication: cough", False),
        ("Indication: cough Comparison: None.", False),
        ("Comparison: none available History: fever", False),
        ("Comparison: No prior studies. Technique: PA", False),
        ("Comparison: Chest radiograph of May History: fever", True),
        ("Comparison: CT", True),
        ("Frontal: \nPrior frontal: \nDescribe. Comparison: None.", True),
        ("Describe. Prior report: The lungs are clear.", True),
    ],
)
def test_a_comparison_field_that_names_none_gives_none(context, given):
    assert comparison_given(context) is given


def test_what_the_records_do_not_hold_is_unavailable_with_the_reason_not_zero():
    found = text_health([Prediction("a", NORMAL, "")], 64).to_dict()
    names = ("truncated", "invented_comparisons", "references_longer", "length_ratio")
    assert {name: found[name] for name in names} == dict.fromkeys(names)
    assert set(found["unavailable"]) == set(names)
    json.dumps(found, allow_nan=False)


def test_every_number_that_varies_with_the_reports_has_an_interval_around_it():
    loop = "no pleural effusion is seen. " * 3
    records = [
        replace(record(text, ended=i % 3 > 0), id=str(i), study_id=str(i // 2))
        for i, text in enumerate([NORMAL, "", loop, "Stable cardiomegaly.", NORMAL, loop])
    ]
    lengths = [12, 70, 12, 12, 70, 12]
    found = text_health(records, 64, lengths)
    ranges = intervals(health_metrics(records, 64, lengths), [r.study_id for r in records])
    others = {"n", "gen_length", "without_comparison", "unavailable"}
    assert set(ranges) == set(found.to_dict()) - others
    for name, (low, high) in ranges.items():
        assert low <= getattr(found, name) <= high, name
    for name in ("empty", "truncated", "invented_comparisons", "repetition", "references_longer"):
        assert ranges[name][0] < ranges[name][1], name


def test_a_count_is_drawn_as_one_of_all_reports_also_where_studies_differ_in_size():
    records = [record(prediction="") for _ in range(3)] + [record()]
    metric = health_metrics(records)["empty"]
    assert metric.value() == 3.0
    low, high = intervals({"empty": metric}, ["a", "a", "a", "b"])["empty"]
    assert (low, high) == (0.0, 4.0)


def test_bad_input_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="no record"):
        text_health([], 64)
    with pytest.raises(ValueError, match="1 entries for 2 records"):
        text_health([record(), record()], 64, [3])


def test_reports_that_are_alike_are_counted_and_warned_about():
    others = [f"Report {word} about a heart and a lung number {word}." for word in "abcdef"]
    found = health(*(record(reference=text) for text in others))
    assert (found.distinct, found.near_duplicates) == (1 / 6, 1.0)
    assert (found.reference_distinct, found.reference_near_duplicates) == (1.0, 0.0)
    same = [record(reference=f"{i}") for i in range(30)]
    assert warnings_of(health(*same)) == [
        "all 30 reports are identical: the model does not look at the image"
    ]
    two = [
        record(prediction="Other.", reference="x"),
        *(record(reference=f"{i}") for i in range(59)),
    ]
    assert (
        "only 2 of 60 reports are different (60 of the references)" in warnings_of(health(*two))[0]
    )
    assert not warnings_of(health(*(record() for _ in range(30)))), "the references are alike too"


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6).map(" ".join), max_size=12))
def test_near_duplicates_are_those_of_every_pair_compared(texts):
    def near(one, other):
        a, b = (set(pairwise(text.split())) for text in (one, other))
        return one == other or bool(a | b and len(a & b) >= 0.8 * len(a | b))

    expected = [
        any(near(text, other) for j, other in enumerate(texts) if i != j)
        for i, text in enumerate(texts)
    ]
    assert near_duplicates(texts).tolist() == expected
