"""Report text -> sentences in one plain spelling, the first step of every rule-based reader.

    split_sentences(normalize(text)) -> find_mentions(sentence, patterns) -> denied(...)

Used by the labeler (the CheXpert findings of real reports) and by `llava.phantom` (the findings
that the synthetic corpus draws).
"""

from __future__ import annotations

import re
from itertools import pairwise

from llava.text import plain_text

SIZE = (
    r"(?:tiny|trace|small|minimal\w*|mild\w*|moderate\w*|large|massive|severe\w*|marked\w*|slight\w*"
    r"|subtle|sizeable|extensive)"
)
QUALITY = (
    r"(?:stable|unchanged|persist\w+|residual|remaining|new|old|healed|healing|known|chronic"
    r"|resolving|improving|improved|worsening|increas\w+|decreas\w+|bibasilar|biapical|patchy)"
)
"""Words that a statement of its own begins with: nobody writes "no effusion, small edema"."""

# ------------------------------------------------------------------------- lines and lists

_MARK = (
    r"(?:[-\u2013\u2014*\u2022\u00b7\u25aa\u25cf\u25e6\u2023]|>(?!\s*\d)|\#?\(?\d{1,2}[.):](?!\d)"
    r"|\d{1,2}-(?=\s)|\#\d|\(?[a-h][.)]|\(?[ivx]{1,4}[.)])"
)
_HEADING = r"[A-Z][A-Z /&,]+:"
_BEGINS = re.compile(rf"{_MARK}|{_HEADING}")
_LOOKS_NEW = re.compile(rf"[A-Z]|(?:{SIZE}|no)\b")
_GOES_ON = re.compile(r"(?:and|or|nor|but|with|without|of|in|at|on|to|which|that)\b", re.IGNORECASE)
_UNFINISHED = re.compile(
    r"(?:[,:(]|\b(?:an?|the|no|not|of|in|at|on|to|for|from|by|and|or|nor|but|with|without|is|are|was"
    r"|were|has|have|definite|focal|acute|evidence|than|versus))$",
    re.IGNORECASE,
)
_NARROWEST = 40
"""No report is wrapped at fewer columns."""

_ITEM = re.compile(r"(?<!\S)(?:\#(\d{1,2})\b|\(?(\d{1,2}|[a-h])\)|(\d{1,2})-(?=\s))")


def _unwrapped(paragraph: str) -> str:
    """The lines of a paragraph, those joined that only wrap.

    A line begins a statement when it has a list mark or a heading, or when it starts like one and
    the line before was neither full nor left unfinished.
    """
    lines = paragraph.split("\n")
    if len(lines) == 1:
        return paragraph
    wrapped, lower = _is_wrapped(lines), paragraph == paragraph.lower()
    joined = lines[0]
    for before, line in pairwise(lines):
        if _BEGINS.match(line) or not (
            wrapped
            or _UNFINISHED.search(before)
            or _GOES_ON.match(line)
            or not (lower or _LOOKS_NEW.match(line))
        ):
            joined += "\n" + line
        else:
            joined += line if re.search(r"\w-$", before) else " " + line
    return joined


def _is_wrapped(lines: list[str]) -> bool:
    """Whether no line had room for the next word, and some line starts within a sentence."""
    width = max(map(len, lines))
    return (
        width >= _NARROWEST
        and any(line[:1].islower() for line in lines[1:])
        and all(len(a) + 1 + len(b.partition(" ")[0]) > width for a, b in pairwise(lines))
    )


def _items_on_lines(text: str) -> str:
    """Each item of a list within a line, `1) ... 2) ...`, on a line of its own."""
    expected = {"1", "a"}

    def item(mark: re.Match) -> str:
        label = mark[1] or mark[2] or mark[3]
        if label not in expected:
            return mark[0]
        expected.add(str(int(label) + 1) if label.isdigit() else chr(ord(label) + 1))
        return "\n"

    return _ITEM.sub(item, text)


# ------------------------------------------------------------------------- marks within a line

Rule = tuple[re.Pattern, str]


def _rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((re.compile(regex), replacement) for regex, replacement in pairs)


_SIGNS = _rules(
    (r"(?:^|(?<=[,;.|:\n]))(\s*)\(-\)\s*(?=\w)", r"\1no "),
    (r"(?:^|(?<=[,;.|:\n]))(\s*)\(\+\)\s*(?=\w)", r"\1| "),
    (r"\s*[(\[](?:-|-\s?ve|neg)[)\]]|\s+-\s?ve\b|:\s*-(?=\s*(?:[.,;\n]|$))", " negative"),
    (r"\s*[(\[](?:\+|\+\s?ve|pos)[)\]]|\s+\+\s?ve\b|:\s*\+(?=\s*(?:[.,;\n]|$))", " positive"),
)
_QUESTIONS = _rules(
    (
        r"(?i)\s*\?+\s*(?=(?:no|none|nil|neg|negative|absent|not|yes|present|positive)\b"
        rf"|{SIZE}\b)",
        ": ",
    ),
    (r"(?:^|(?<=[\s(]))\?+\s?(?=[A-Za-z])", "possible "),
    (r"(?<=\w)\s*\?+", " possible."),
)
_BRACKETS = _rules(
    (r"[(\[{]\s*(?=(?:none|nil|absent|negative)\s*[)\]}])", ": "),
    (
        r"[(\[{]\s*((?:[A-Z][a-z]|(?:an?|there|no|without|not|"
        rf"{SIZE}|{QUALITY})\b)[^()\[\]{{}}]{{0,400}})[)\]}}]",
        r" | \1 | ",
    ),
    (r"[()\[\]{}]", ", "),
)
_HYPHENS = _rules(
    (
        r"(?i)\b(non|post|pre|peri|para|sub|mid|multi|intra|inter|extra|infra|supra|semi|x|re|ill|well"
        r"|air|low|hydro|cardio|costo|pneumo|ground|swan|follow|year|week|day|month|\d+) [-\u2013] "
        r"(?=\w)",
        r"\1 ",
    ),
    (
        r"(?i)(?<=\w) [-\u2013] (?=(?:sided|rays?|related|like|shaped|appearing|standing|defined|up|to"
        r"|ganz|glass|\d+)\b)",
        " ",
    ),
)
_DASHES = _rules(
    (
        r" *(?:-{2,}|\u2014) *| +[-\u2013] +| [-\u2013](?=[A-Za-z])"
        r"|(?<=[a-z])[-\u2013] (?!(?:and|or|to)\b)",
        " | ",
    ),
)
_BARS = _rules(
    (
        r" *(?:[|\u00a6\u2022\u25aa\u25cf\u25e6\u2023\u25a0\u25ba]+|(?<!\d)\u00b7|(?<= )\*+(?= )) *",
        " | ",
    ),
    (r"(?<!left)(?<!right)(?<!\bL)(?<!\bR) +>+ +(?!left|right|[LR]\b|\d)", " | "),
    (r" *//+ *", " | "),
    (rf"\b(?!{SIZE}\b)(\w+) / (?={SIZE}\b)", r"\1 | "),
)
_HEADINGS = _rules(
    (r"(?<=\S)\s+(?=[A-Z][A-Z/&]+(?: [A-Z/&]+){0,3}:)", "\n"),
    (r"(?<=[a-z,;)])\s+(?=[A-Z][a-z]+(?:[ /][a-z]+){0,2}:)", "\n"),
)
_LUNGS = {"L": "left", "R": "right"}
_LOBES = {"U": "upper", "M": "middle", "L": "lower"}
_LOBE = re.compile(r"[LR][ULM]L\b(?<!\w...)")
_SPELLED_OUT = _rules(
    # the letter comes first, so that the search skips to it
    (r"L(?!\w)(?<!\w.)(?<!\d L)", "left"),
    (r"R(?!\w)(?<!\w.)", "right"),
    (r"[\u00d8\u2205\u00f8] ?(?=[A-Za-z])", "no "),
    (r"[Nn]eg(?!\w)\.?", "negative"),
)
_SLASHES = _rules(
    (r"\bw/o\b", "without"), (r"\bw/", "with "), (r"\bb/l\b", "bilateral"), (r"/", " or ")
)
_SPELLING = _rules(
    (r"n't\b", " not"),
    (r"cannot\b", "can not"),
    (r"[-\u2010-\u2015]", " "),
    (r"&", " and "),
    (r"  +", " "),
    (r" ,", ","),
)


def normalize(text: str) -> str:
    """Lower case, abbreviations and signs spelled out, one statement a line.

    A newline is where a line, an item of a list or a section ends, not where a line merely wraps.
    ` | ` is where a statement ends within a line: at a dash, a bar, a bullet, around a bracket that
    makes a statement of its own. Hyphens are blanks.
    """
    text = plain_text(text)
    if "\n" in text:
        text = "\n\n".join(_unwrapped(part.strip("\n")) for part in text.split("\n\n"))
    if ")" in text or "#" in text or "-" in text:
        text = _items_on_lines(text)
    for needed, rules in _MARKS:
        if any(mark in text for mark in needed):
            text = _apply(rules, text)
    text = _LOBE.sub(lambda m: f"{_LUNGS[m[0][0]]} {_LOBES[m[0][1]]} lobe", text)
    text = _apply(_SPELLED_OUT, text).lower()
    return _apply(_SPELLING, _apply(_SLASHES, text) if "/" in text else text)


_MARKS = (
    (("(-", "(+", "[-", "[+", "-ve", "- ve", "+", "(neg", "(pos", ":-", ": -"), _SIGNS),
    (("?",), _QUESTIONS),
    (("(", "[", "{", ")", "]", "}"), _BRACKETS),
    ((" - ", " \u2013 "), _HYPHENS),
    (("--", "\u2014", " -", "- ", " \u2013", "\u2013 "), _DASHES),
    (("|", "\u00a6", "\u2022", "\u25aa", "\u25cf", "\u00b7", "*", ">", "//", " / "), _BARS),
    ((":",), _HEADINGS),
)
"""What a text must hold for the rules to be tried, in their order."""


def _apply(rules: tuple[Rule, ...], text: str) -> str:
    for regex, replacement in rules:
        text = regex.sub(replacement, text)
    return text


_SENTENCE_END = re.compile(r"[.;!?\n](?<!\d\.(?=\d))")


def split_sentences(normal: str) -> list[str]:
    """The sentences of a `normalize`d text; a decimal point ends none."""
    parts = (part.strip() for part in _SENTENCE_END.split(normal))
    return [part for part in parts if re.search(r"\w", part)]
