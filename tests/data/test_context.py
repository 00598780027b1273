"""Clinical context: in the prompt, next to it by field, and dropped by seed, epoch and sample."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_entries import entry, save

from llava.constants import ASSISTANT_PROMPT, CLINICAL_FIELDS
from llava.data.conversion.study import to_conversation
from llava.data.prompt import context_fields, context_text, human_turn, split_context
from llava.data.samples.context_dropout import ContextDropout
from llava.data.samples.entry import context_of
from llava.data.samples.reading import load_entries

CONTEXT = {"indication": "Cough", "comparison": "None.", "history": "COPD", "technique": "AP"}
FIELDS = context_fields(CONTEXT)
FULL = human_turn(CONTEXT)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip() == text)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(CLINICAL_FIELDS), TEXT), st.none() | TEXT)
def test_any_prompt_is_put_together_again_to_the_character(context, prior):
    question = human_turn(context, prior_report=prior)
    head, fields = split_context(question)
    assert head + context_text(fields) == question
    assert head == ASSISTANT_PROMPT
    assert len(fields) >= len(context)


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_any_text_at_all_is_put_together_again(text):
    for question in (text, f"{FULL} {text}"):
        head, fields = split_context(question)
        assert head + context_text(fields) == question


def test_the_fields_are_told_apart_by_their_labels():
    question = FULL + " Prior report: No effusion."
    assert split_context(question)[1] == (*FIELDS, ("prior_report", "No effusion."))
    assert split_context("Q Following clinical context: a man")[1] == (("", "a man"),)


def test_what_is_left_is_the_prompt_that_the_remaining_fields_would_have_given():
    possible = set()
    for number in range(16):
        kept = [name for bit, name in enumerate(CONTEXT) if number >> bit & 1]
        possible.add(human_turn({name: CONTEXT[name] for name in kept}))
    dropout = ContextDropout(0.5, seed=3)
    drawn = {dropout.kept(FIELDS, epoch, sample) for epoch in range(8) for sample in range(60)}
    assert {ASSISTANT_PROMPT + context_text(kept) for kept in drawn} == possible
    assert ContextDropout(1.0).kept(FIELDS, 0, 0) == ()
    assert ContextDropout(0.0).kept(FIELDS, 0, 0) == FIELDS


def test_each_field_is_dropped_about_as_often_as_was_asked():
    dropout = ContextDropout(0.2)
    drawn = [dict(dropout.kept(FIELDS, 0, sample)) for sample in range(2000)]
    for name in CONTEXT:
        assert sum(name in kept for kept in drawn) / 2000 == pytest.approx(0.8, abs=0.04)


def test_the_draw_is_a_function_of_seed_epoch_and_sample():
    def drawn(seed, epoch, samples=range(40)):
        return [ContextDropout(0.5, seed).kept(FIELDS, epoch, sample) for sample in samples]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0)[20:] == drawn(0, 0, range(20, 40))
    assert drawn(0, 0) != drawn(0, 1)
    assert drawn(0, 0) != drawn(1, 0)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_what_is_not_a_probability_is_refused(probability):
    with pytest.raises(ValueError, match=r"context_dropout=.* is not a probability; use 0"):
        ContextDropout(probability)


# ------------------------------------------------------------ carried by files


def test_a_written_sample_carries_its_context_and_its_prior_report(tmp_path):
    # A label inside a field cannot be told from the next field in the prompt alone.
    context = {"indication": "Cough History: unknown", "technique": None}
    roles = ["Frontal", "Prior frontal"]
    sample = to_conversation("a", ["a.png", "b.png"], "Clear.", context, "s1", roles, "No effusion")
    path = save(tmp_path / "data.json", [sample])
    (found,) = load_entries(path, tmp_path)
    assert found.study_id == "s1"
    assert found.context == (
        ("indication", "Cough History: unknown"),
        ("prior_report", "No effusion"),
    )
    assert found.question(found.context) == found.messages[0]["value"]
    assert found.question(found.context[1:]) == human_turn({}, roles, "No effusion")
    del sample["context"]
    (parsed,) = load_entries(save(path, [sample]), tmp_path)
    assert parsed.context[:2] == (("indication", "Cough"), ("history", "unknown"))
    assert parsed.question(()) == found.question(())


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_a_file_without_context_is_read_from_its_question(absent):
    assert context_of({"context": absent}, FULL, "here") == FIELDS
    assert context_of({}, FULL, "here") == FIELDS
    assert context_of({"context": {}}, ASSISTANT_PROMPT, "here") == ()


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"indication": "Fever"}, "the question does not end with its 'context'"),
        ({}, "the question does not end with its 'context'"),
        ({"indicaton": "Cough"}, "field 'context': {'indicaton': 'Cough'} is not an object of"),
        ("Cough", "field 'context': 'Cough' is not an object of texts under indication"),
        ({"indication": 3}, "field 'context': {'indication': 3} is not an object of texts"),
    ],
)
def test_a_context_that_is_not_the_questions_is_refused(tmp_path, context, message):
    path = save(tmp_path / "data.json", [entry(question=FULL, context=context)])
    with pytest.raises(ValueError, match=f"entry 'study-1'.*{message}"):
        load_entries(path, tmp_path)


def test_a_table_carries_what_a_list_carries(tmp_path, monkeypatch):
    monkeypatch.setattr("llava.data.samples.reading.TABLE_BYTES", 0)
    carried = entry(question=FULL, context=CONTEXT, study_id="s1")
    old = json.loads(json.dumps(entry(question="<image>\nQ")))
    first, second = load_entries(save(tmp_path / "data.json", [carried, old]), tmp_path)
    assert (first.context, first.study_id) == (FIELDS, "s1")
    assert (second.context, second.study_id) == ((), "")


def test_an_evaluations_document_carries_the_context(tmp_path):
    from llava.eval.documents import read_documents, write_documents

    carried = entry(question=human_turn(CONTEXT).removeprefix("<image>\n"), image=[], id="a")
    documents, _ = read_documents(
        save(tmp_path / "d.json", [{**carried, "context": CONTEXT}]), None
    )
    assert documents[0].clinical_context == FIELDS
    written = json.loads(write_documents(documents, tmp_path).read_text(encoding="utf-8"))
    assert written["clinical_context"] == [list(pair) for pair in FIELDS]
    assert (written["id"], written["prompt"]) == ("a", documents[0].prompt)
