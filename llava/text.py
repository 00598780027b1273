"""Undo what spreadsheets, web pages and PDF copies leave in a text.

    plain_text("No&nbsp;ef\\ufb01usion<br>Heart_x000D_\\n enlarged")

Used by every converter on reports and clinical fields, and by the labeler. Standard library only.
"""

from __future__ import annotations

import html
import re
import unicodedata

_EXCEL = re.compile(r"_x([0-9A-Fa-f]{4})_")
"""A control character as Excel writes it into its XML: `_x000D_` is a carriage return."""

_TWICE_ESCAPED = re.compile(r"&(?:amp;|#38;|#[xX]26;)+")
_ENTITY = re.compile(
    r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
    r"|&(?:nbsp|amp|lt|gt|quot)\b"
)
"""Without the semicolon only the commonest: `PA&lateral` and `no&notable` are not entities."""

_BREAKING_TAG = re.compile(
    r"<\s*/?\s*(?:br|hr|p|div|tr|h[1-6]|ul|ol|dl|dt|dd|table|section|article)\b[^<>]{0,400}>",
    re.IGNORECASE,
)
_LIST_ITEM = re.compile(r"<\s*li\b[^<>]{0,400}>", re.IGNORECASE)
_CELL = re.compile(r"<\s*/?\s*t[dh]\b[^<>]{0,400}>", re.IGNORECASE)
_OTHER_TAG = re.compile(
    r"<\s*/?\s*(?:a|b|i|u|s|em|strong|span|font|small|big|sup|sub|mark|pre|code|center|tbody|thead"
    r"|html|body|li)\b[^<>]{0,400}>",
    re.IGNORECASE,
)
"""HTML by name, so that `<5 mm`, `< 50 %` and the image placeholder stay as they are."""

_ESCAPED_LINE_END = re.compile(r"\\r\\n|\\[nr](?![a-z])")
_ESCAPED_TAB = re.compile(r"\\t(?![a-z])")
"""Backslash and letter where a line end was meant; `left\\right` and `\\nodule` are words."""

_SOFT_HYPHEN_AT_LINE_END = re.compile(r"\u00ad[ \t]*\n[ \t]*")

_CONTINUATION = (
    "\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d"
    "\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178"
)
_MOJIBAKE = re.compile(f"[\u00c2\u00c3][{_CONTINUATION}]|\u00e2[\u20ac\u0080][{_CONTINUATION}]")
"""UTF-8 that was read as Windows-1252 or Latin-1: an accented letter, a quote, a dash, a blank."""

_REPLACED = str.maketrans(
    {
        **dict.fromkeys((*range(0x20), 0x7F, *range(0x80, 0xA0)), " "),
        **dict.fromkeys("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", "\n"),
        **dict.fromkeys("\xa0\u1680\u202f\u205f\u3000", " "),
        **dict.fromkeys(range(0x2000, 0x200B), " "),
        # soft hyphen, zero width, direction marks, byte-order mark
        **dict.fromkeys((0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F)), None),
        **dict.fromkeys((*range(0x2060, 0x2070), 0xFEFF), None),
        **{"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl"},
        **dict.fromkeys("\ufb05\ufb06", "st"),
        **dict.fromkeys("\u2010\u2011\u2212", "-"),
        **dict.fromkeys("\u2018\u2019\u02bc", "'"),
        **dict.fromkeys("\u201c\u201d", '"'),
        # bullets of Word's symbol fonts
        **dict.fromkeys("\uf0b7\uf0a7\uf0a8\uf0d8\uf02d", "\u2022"),
        "\u2026": "...",
    }
)
_BLANK_LINES = re.compile(r"\n{3,}")


def plain_text(text: str) -> str:
    """Return `text` as a person would type it, with its lines.

    Undone: Excel's `_x000D_`, HTML entities (also escaped twice) and tags, `\\n` written out,
    UTF-8 read as Windows-1252, typographic quotes and bullets, ligatures, soft hyphens and other
    characters of no width. Every kind of line end is a newline; runs of blanks are one space, runs
    of empty lines one empty line. Dashes, signs and case stay. What an entity hid, such as a
    special token of the chat format, is plain to see afterwards: look for it in the result.
    """
    if "_x" in text:
        text = _EXCEL.sub(_excel_character, text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", _MOJIBAKE.sub(_read_again, text))
    if "&" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), _TWICE_ESCAPED.sub("&", text))
    if "<" in text:
        text = _LIST_ITEM.sub("\n- ", _BREAKING_TAG.sub("\n", text))
        text = _OTHER_TAG.sub("", _CELL.sub(" ", text))
    if "\\" in text:
        text = _ESCAPED_TAB.sub(" ", _ESCAPED_LINE_END.sub("\n", text))
    text = text.replace("\r\n", "\n")
    text = _SOFT_HYPHEN_AT_LINE_END.sub("", text).translate(_REPLACED)
    text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


def _excel_character(escape: re.Match) -> str:
    character = chr(int(escape[1], 16))
    return escape[0] if "\ud800" <= character <= "\udfff" else character


def _read_again(characters: re.Match) -> str:
    """The text that the bytes of `characters` are in UTF-8; unchanged where they are none."""
    try:
        encoded = b"".join(
            c.encode("latin-1") if ord(c) < 0x100 else c.encode("cp1252") for c in characters[0]
        )
        return encoded.decode("utf-8")
    except UnicodeError:
        return characters[0]
