"""The texts of a report's tokens, which join to its decoded text."""

from llava.writing.records import token_texts


def test_the_texts_of_the_tokens_join_to_the_decoded_text(tiny_tokenizer):
    text = "Naïve 5° µ \U0001fac1 lungs.\n\nNo effusion."
    ids = tiny_tokenizer(text)["input_ids"] + [tiny_tokenizer.eos_token_id]
    texts = token_texts(ids, tiny_tokenizer)
    assert len(texts) == len(ids)
    assert "".join(texts) == text + tiny_tokenizer.eos_token
    assert texts[-1] == tiny_tokenizer.eos_token
    assert "\ufffd" not in "".join(texts)


def test_half_a_character_at_the_end_is_shown_as_such(tiny_tokenizer):
    ids = tiny_tokenizer("\U0001fac1")["input_ids"][:-1]
    assert "".join(token_texts(ids, tiny_tokenizer)) == tiny_tokenizer.decode(ids)
