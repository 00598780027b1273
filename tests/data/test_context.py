"""Clinical context taken apart and dropped: whole prompts, fixed by seed, epoch and sample."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.constants import ASSISTANT_PROMPT, CLINICAL_FIELDS
from llava.data.prompt import human_turn
from llava.data.samples.context_dropout import ContextDropout, join_context, split_context

CONTEXT = {"indication": "Cough", "comparison": "None.", "history": "COPD", "technique": "AP"}
FULL = human_turn(CONTEXT)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip() == text)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(CLINICAL_FIELDS), TEXT))
def test_any_prompt_is_put_together_again_to_the_character(context):
    question = human_turn(context)
    head, fields = split_context(question)
    assert join_context(head, fields) == question
    assert head == ASSISTANT_PROMPT
    assert len(fields) >= len(context)


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_any_text_at_all_is_put_together_again(text):
    assert join_context(*split_context(text)) == text
    assert ContextDropout(0.0).apply(text, epoch=1, sample=2) == text


def test_the_fields_are_told_apart_with_their_labels():
    question = FULL + " Prior report: No effusion."
    assert split_context(question)[1] == [
        "Indication: Cough",
        "Comparison: None.",
        "History: COPD",
        "Technique: AP",
        "Prior report: No effusion.",
    ]


def test_what_is_left_is_the_prompt_that_the_remaining_fields_would_have_given():
    possible = {human_turn(CONTEXT)}
    for number in range(16):
        kept = [name for bit, name in enumerate(CONTEXT) if number >> bit & 1]
        possible.add(human_turn({name: CONTEXT[name] for name in kept}))
    dropout = ContextDropout(0.5, seed=3)
    drawn = {dropout.apply(FULL, epoch, sample) for epoch in range(8) for sample in range(60)}
    assert drawn == possible
    assert ContextDropout(1.0).apply(FULL, 0, 0) == ASSISTANT_PROMPT


def test_each_field_is_dropped_about_as_often_as_was_asked():
    dropout = ContextDropout(0.2)
    prompts = [dropout.apply(FULL, 0, sample) for sample in range(2000)]
    for name in CONTEXT:
        kept = sum(f"{name.capitalize()}: " in prompt for prompt in prompts)
        assert kept / len(prompts) == pytest.approx(0.8, abs=0.04)


def test_the_draw_is_a_function_of_seed_epoch_and_sample():
    def drawn(seed, epoch, samples=range(40)):
        return [ContextDropout(0.5, seed).apply(FULL, epoch, sample) for sample in samples]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0)[20:] == drawn(0, 0, range(20, 40))
    assert drawn(0, 0) != drawn(0, 1)
    assert drawn(0, 0) != drawn(1, 0)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match=r"context_dropout=.* is no probability; use 0 for none"):
        ContextDropout(probability)
