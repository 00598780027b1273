"""plain_text undoes what spreadsheets, web pages and PDF copies leave, and nothing else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.text import plain_text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("No effusion._x000D_\nCardiomegaly._x000D_", "No effusion.\nCardiomegaly."),
        ("Heart_x0020_size", "Heart size"),
        (
            "No&nbsp;effusion &amp; no edema, heart &lt; 50&#37;.",
            "No effusion & no edema, heart < 50%.",
        ),
        ("No&nbsp effusion &amp;amp; edema", "No effusion & edema"),
        ("No effusion.<br/>Heart <b>enlarged</b>.", "No effusion.\nHeart enlarged."),
        ("&lt;p class='x'&gt;Clear.&lt;/p&gt;", "Clear."),
        ("<ul><li>Clear</li><li>No edema</li></ul>", "- Clear\n- No edema"),
        ("<td>Heart</td><td>normal</td>", "Heart normal"),
        ("No effusion\\nCardiomegaly\\r\\nmild", "No effusion\nCardiomegaly\nmild"),
        ("a\r\nb\rc\u2028d\u2029e\x0bf\x0cg\x85h", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("No\xa0pneu\u00admo\u200bthorax\u2009here\ufeff", "No pneumothorax here"),
        ("pneumo\u00ad\n   thorax", "pneumothorax"),
        (
            "No e\ufb00usion. In\ufb01ltrate, \ufb02uid, e\ufb03cient.",
            "No effusion. Infiltrate, fluid, efficient.",
        ),
        ("It\u2019s \u201cclear\u201d\u2026", 'It\'s "clear"...'),
        ("right\u2011sided, \u22123 cm", "right-sided, -3 cm"),
        ("\uf0b7 Clear", "\u2022 Clear"),
        ("atelectasis\x00 and\x07edema", "atelectasis and edema"),
        (
            "No effusion\u00e2\u20ac\u201c1.5\u00c2\u00a0cm, patr\u00c3\u00b3n",
            "No effusion\u20131.5 cm, patr\u00f3n",
        ),
        ("to\u0301rax", "t\u00f3rax"),
        ("  Heart   enlarged \t \n\n\n\n  Lungs clear\n", "Heart enlarged\n\nLungs clear"),
    ],
)
def test_what_a_copy_left_is_undone(text, plain):
    assert plain_text(text) == plain
    assert plain_text(plain) == plain


@pytest.mark.parametrize(
    "text",
    [
        "Nodule <5 mm, heart < 50 % and > 40 %, p<0.05.",
        "PA&lateral views. AP & lateral; R&D; AT&T&not.",
        "left\\right lung, no\\nodule, and\\or",
        "MAX_x12 _x00_ ___ -- ___",
        "No effusion \u2013 heart enlarged \u2014 clear \u00b7 10 \u00b5m \u00b1 2\u00b0 \u00bd",
        "Silueta card\u00edaca, \u00c2mbito, N\u00c3O, a\u00f1os. \u00bfDerrame?",
        "- No effusion\n- Cardiomegaly\n\n1) Clear",
        "<image>\nDescribe. <|mask|>",
    ],
)
def test_what_was_typed_stays(text):
    assert plain_text(text) == text


def test_a_special_token_that_was_escaped_is_plain_to_see():
    assert plain_text("&lt;|mask|&gt; &lt;image&gt;") == "<|mask|> <image>"


@given(st.text(max_size=200))
def test_any_text_keeps_its_ordinary_words_and_is_on_clean_lines(text):
    plain = plain_text(f"Heart {text}\nenlarged")
    assert plain.startswith("Heart")
    assert plain.endswith("enlarged")
    assert all(line == " ".join(line.split()) for line in plain.split("\n"))


@pytest.mark.parametrize(
    "part", ["&amp;", "<br", "< ", "_x00", "\\n", "\u00ad\n ", "\n \n", "\u00c2"]
)
def test_a_text_that_repeats_itself_is_undone_in_linear_time(part):
    start = time.process_time()
    plain_text(part * 50_000)
    assert time.process_time() - start < 2
