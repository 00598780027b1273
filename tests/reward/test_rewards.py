"""Each reward by values worked out by hand, and what all of them hold to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.reward.rewards import REWARDS, Written, example_f1

REFERENCE = "There is a left pleural effusion. No pneumothorax. The heart is enlarged."
WORDS = (
    "no",
    "left",
    "right",
    "effusion",
    "pneumothorax",
    "the heart is enlarged",
    ".",
    "lungs clear",
)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(text=TEXTS, reference=TEXTS, ended=st.booleans())
def test_every_reward_is_from_0_to_1_and_the_reference_itself_gets_1(text, reference, ended):
    for name, function in REWARDS.items():
        assert 0 <= function(Written(text, reference, ended)) <= 1, name
    for name in ("findings", "phantom", "length"):
        assert REWARDS[name](Written(reference, reference)) == 1


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        # Stated: {effusion} of {effusion, cardiomegaly}, F1 2/3; denied: none of one, 0.
        ("findings", "Left pleural effusion.", 1 / 3),
        ("findings", "Pleural effusion. Cardiomegaly. No pneumothorax.", 1.0),
        ("findings", "", 0.0),
        ("phantom", "Right pleural effusion. The heart is enlarged.", 0.5),
        ("phantom", "Left pleural effusion. Cardiomegaly.", 1.0),
        ("rouge_l", "", 0.0),
        ("rouge_l", REFERENCE.upper(), 1.0),
        ("length", REFERENCE + " " + REFERENCE, 0.5),
        ("length", "Clear.", 1.0),
        ("repetition", "a b c d e", 1.0),
        # 4-grams abcd bcda cdab dabc abcd: one of five again
        ("repetition", "a b c d a b c d", 0.8),
        ("format", "Clear.", 1.0),
        ("format", " ", 0.0),
    ],
)
def test_a_reward_worked_out_by_hand(name, text, expected):
    assert REWARDS[name](Written(text, REFERENCE)) == pytest.approx(expected)


def test_a_report_that_was_cut_off_has_no_format():
    assert REWARDS["format"](Written("The lungs are", REFERENCE, ended=False)) == 0


def test_example_f1_of_two_empty_sets_is_1():
    assert example_f1(frozenset(), frozenset()) == 1
    assert example_f1(frozenset("a"), frozenset()) == 0
    assert example_f1(frozenset("ab"), frozenset("bc")) == 0.5
