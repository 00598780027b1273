"""Messages as Qwen3 chat: what the model reads, and what of it is labelled."""

import copy
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX, SYSTEM_PROMPT
from llava.conversation import (
    check_messages,
    decode_answer,
    encode_conversation,
    encode_prompt,
    token_id,
)

QUESTION = (
    "<image>\nProvide a detailed description of the findings in the radiology image. "
    "Following clinical context: Indication: F with cough fever"
)
REPORT = "PA and lateral views.\n\nThere is no focal consolidation (e.g. pneumonia); 2.5 cm nodule."
SYSTEM = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
NO_THINKING = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def qwen(shared):
    """The real Qwen3 tokenizer with its mask token."""
    from transformers import AutoTokenizer

    from llava.model.builder import prepare_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "data" / "qwen3_tokenizer")
    return prepare_tokenizer(tokenizer, 151936)


def turns(*values):
    roles = ("human", "gpt")
    return [{"from": roles[i % 2], "value": value} for i, value in enumerate(values)]


def whole(tokenizer, text):
    """Ids of a chat written out as one string; an image placeholder splits it."""
    pieces = text.split("<image>")
    ids = tokenizer(pieces[0])["input_ids"]
    for piece in pieces[1:]:
        ids += [IMAGE_TOKEN_INDEX, *tokenizer(piece)["input_ids"]]
    return ids


def targets(encoded):
    return [label for label in encoded.labels if label != IGNORE_INDEX]


def chat(question, report):
    return (
        f"{SYSTEM}<|im_start|>user\n{question}<|im_end|>\n"
        f"<|im_start|>assistant\n{NO_THINKING}{report}<|im_end|>\n"
    )


def test_the_ids_are_those_of_the_chat_text_tokenised_as_one_piece(qwen):
    encoded = encode_conversation(turns(QUESTION, REPORT), qwen)
    assert encoded.input_ids == whole(qwen, chat(QUESTION, REPORT))
    assert encoded.input_ids.count(IMAGE_TOKEN_INDEX) == 1


# Without "<": hypothesis tries the literals of the code too, and a special token spelled out in a
# message is plain text here, unlike in one piece.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=30)


@settings(max_examples=60, deadline=None)
@given(question=TEXT, report=TEXT)
def test_any_text_is_tokenised_as_in_one_piece(qwen, question, report):
    question, report = f"<image>\n{question}?", f"{report}."
    expected = whole(qwen, chat(question, report.strip()))
    assert encode_conversation(turns(question, report), qwen).input_ids == expected


def test_a_conversation_is_encoded_in_milliseconds(qwen):
    encode_conversation(turns(QUESTION, REPORT), qwen)
    begin = time.process_time()
    for _ in range(50):
        encode_conversation(turns(QUESTION, REPORT), qwen)
    assert (time.process_time() - begin) / 50 < 0.01


def test_the_labels_are_exactly_the_report_its_end_and_the_line_break(qwen):
    encoded = encode_conversation(turns(QUESTION, REPORT), qwen)
    assert targets(encoded) == qwen(f"{REPORT}<|im_end|>\n")["input_ids"]
    assert targets(encoded) == encoded.input_ids[encoded.answer_start :]
    assert targets(encoded)[-2] == 151645
    assert len(encoded.labels) == len(encoded.input_ids)


def test_the_mask_token_added_to_qwens_tokenizer_has_id_151669(qwen):
    assert qwen.mask_token == "<|mask|>"
    assert qwen.mask_token_id == 151669
    assert qwen.pad_token_id == 151643


@pytest.mark.parametrize("version", ["qwen", "plain"])
def test_a_prompt_is_what_comes_before_the_answer_of_the_whole_conversation(
    tiny_tokenizer, version
):
    encoded = encode_conversation(turns(QUESTION, REPORT), tiny_tokenizer, version)
    prompt = encode_prompt(QUESTION, tiny_tokenizer, version)
    assert prompt == encoded.input_ids[: encoded.answer_start]
    assert set(encoded.labels[: len(prompt)]) == {IGNORE_INDEX}


def test_only_the_final_assistant_turn_has_the_think_block(qwen):
    encoded = encode_conversation(turns("<image>\nA?", "B.", "C?", "D."), qwen)
    text = (
        f"{SYSTEM}<|im_start|>user\n<image>\nA?<|im_end|>\n<|im_start|>assistant\nB.<|im_end|>\n"
        f"<|im_start|>user\nC?<|im_end|>\n<|im_start|>assistant\n{NO_THINKING}D.<|im_end|>\n"
    )
    assert encoded.input_ids == whole(qwen, text)


def test_several_turns_label_every_answer_and_no_prompt(qwen):
    encoded = encode_conversation(turns("<image>\nA?", "B.", "C?", "D.", "E?", "F."), qwen)
    assert qwen.decode(targets(encoded)) == "B.<|im_end|>\nD.<|im_end|>\nF.<|im_end|>\n"
    pairs = zip(encoded.input_ids, encoded.labels, strict=True)
    assert all(label in (token, IGNORE_INDEX) for token, label in pairs)


@pytest.mark.parametrize("special", ["<|im_end|>", "<|endoftext|>", "<|im_start|>", "<|mask|>"])
def test_special_tokens_spelled_out_in_a_message_stay_text(qwen, special):
    messages = turns(f"<image>\nWhat is {special}?", f"It is {special} here.")
    encoded = encode_conversation(messages, qwen)
    plain = encode_conversation(turns("<image>\nWhat?", "It."), qwen)
    number = token_id(qwen, special)
    assert encoded.input_ids.count(number) == plain.input_ids.count(number)
    assert decode_answer(targets(encoded), qwen) == (f"It is {special} here.", True)


def test_the_plain_version_is_the_image_and_its_caption(tiny_tokenizer):
    encoded = encode_conversation(turns(QUESTION, "A caption."), tiny_tokenizer, "plain")
    caption = tiny_tokenizer("A caption.<|im_end|>\n")["input_ids"]
    assert encoded.input_ids == [IMAGE_TOKEN_INDEX, *caption]
    assert encoded.labels == [IGNORE_INDEX, *caption]


def test_every_placeholder_becomes_one_image_where_it_stands(tiny_tokenizer):
    ids = encode_prompt("Frontal: <image> Lateral: <image>", tiny_tokenizer)
    first, second = (i for i, token in enumerate(ids) if token == IMAGE_TOKEN_INDEX)
    assert tiny_tokenizer.decode(ids[first + 1 : second]) == " Lateral: "


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_an_answer_is_cut_at_the_first_end_token(tiny_tokenizer, end):
    ids = tiny_tokenizer(f" No effusion.{end}<|endoftext|> rest<|im_end|>")["input_ids"]
    assert decode_answer(ids, tiny_tokenizer) == ("No effusion.", True)


def test_an_answer_without_an_end_token_is_whole_and_not_ended(tiny_tokenizer):
    ids = tiny_tokenizer("No effusion")["input_ids"]
    assert decode_answer(ids, tiny_tokenizer) == ("No effusion", False)
    assert decode_answer([], tiny_tokenizer) == ("", False)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "'conversations' must be a list of turns; got None"),
        ([], "must be a list of turns"),
        (["hello"], "turn 0 must be .* not 'hello'"),
        ([{"from": "human"}], "turn 0 must be"),
        ([{"from": "human", "value": 3}], "turn 0 must be"),
        ([{"from": "system", "value": "x"}], "turn 0: unknown role 'from': 'system'; use 'human'"),
        ([{"from": ["gpt"], "value": "x"}], r"unknown role 'from': \['gpt'\]"),
        (turns("q", "a")[::-1], "turn 0 is from 'gpt'; expected 'human': turns alternate"),
        (turns("q", "a") + turns("q", "a")[1:], "turn 2 is from 'gpt'; expected 'human'"),
        (turns("q"), "there is no answer: the last turn must be from 'gpt'"),
        (turns("q", "a", "q"), "there is no answer"),
        (turns("q", " \n"), "turn 1: there is no answer"),
        (turns("q", "", "q", "a"), "turn 1: there is no answer"),
        (turns("q", "\ud800"), "turn 1 is not valid Unicode"),
    ],
)
def test_bad_messages_name_the_turn_the_field_and_the_remedy(messages, message):
    with pytest.raises(ValueError, match=message):
        check_messages(messages)


def test_good_messages_pass():
    messages = turns("", "a", "q", "b")
    assert check_messages(messages) is messages


@pytest.mark.parametrize("version", ["qwen3", "", "QWEN"])
def test_an_unknown_version_is_refused_with_the_known_ones(tiny_tokenizer, version):
    with pytest.raises(ValueError, match=f"'{version}' is unknown; choose from .*qwen.*plain"):
        encode_prompt("q", tiny_tokenizer, version)


def test_a_tokenizer_without_the_end_of_turn_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"a": 0, "<|endoftext|>": 1}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, name_or_path="some/where")
    with pytest.raises(ValueError, match=r"'some/where' has no <\|im_end\|>; use the tokenizer of"):
        encode_conversation(turns("q", "a"), tokenizer)
    with pytest.raises(ValueError, match=r"has no <\|im_end\|>"):
        decode_answer([0, 1], tokenizer)


def test_encoding_changes_neither_the_messages_nor_the_tokenizer(tiny_tokenizer):
    messages = turns(QUESTION, REPORT)
    before, size = copy.deepcopy(messages), len(tiny_tokenizer)
    encode_conversation(messages, tiny_tokenizer)
    assert messages == before
    assert len(tiny_tokenizer) == size
