"""Report text -> sentences in one plain spelling, the first step of every rule-based reader.

    split_sentences(normalize(text)) -> find_mentions(sentence, patterns) -> denied(...)

Used by the labeler (the CheXpert findings of real reports) and by `llava.phantom` (the findings
that the synthetic corpus draws).
"""

from __future__ import annotations

import re

from llava.eval.labeler.lines import statements_on_lines
from llava.eval.labeler.words import QUALITY, SIZE
from llava.text import plain_text

Rule = tuple[re.Pattern, str]
SEPARATOR = " | "
"""Between two statements that share a line."""

_END = r"(?=\s*(?:[.,;|\n]|$))"
_NO = (
    r"(?:(?:none|nil|not)(?: seen| present| identified| visible)|none|nil|absent|negative|resolved"
    r"|cleared|gone|removed)"
)
_ANSWER = (
    rf"(?:(?:no|neg|yes|present|positive|{_NO})"
    rf"|{SIZE}(?:,? (?:on the )?(?:left|right|bilateral\w*))?){_END}"
)
_PART = (
    r"(?:heart|cardiac silhouette|lungs?|pleura\w*|bones?|mediastinum|chest wall|devices|lines"
    r"|tubes|soft tissues?|airways?|hila)"
)


def _rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((re.compile(regex), replacement) for regex, replacement in pairs)


_MARKS: tuple[tuple[tuple[str, ...], tuple[Rule, ...]], ...] = (
    # signs: Effusion (-), edema +ve
    (
        ("(-", "(+", "[-", "[+", "-ve", "- ve", "\u2013ve", "+", "(neg", "(pos", ":-", ": -"),
        _rules(
            (r"(?:^|(?<=[,;.|:\n]))(\s*)\(-\)\s*(?=\w)", r"\1no "),
            (r"(?:^|(?<=[,;.|:\n]))(\s*)\(\+\)\s*(?=\w)", r"\1| "),
            (
                rf"\s*[(\[](?:-|[-\u2013]\s?ve|neg)[)\]]|\s*[-\u2013]\s?ve\b|:\s*-{_END}",
                " negative",
            ),
            (rf"\s*[(\[](?:\+|\+\s?ve|pos)[)\]]|\s*\+\s?ve\b|:\s*\+{_END}", " positive"),
        ),
    ),
    # questions: Fracture? No. / ?pneumonia
    (
        ("?",),
        _rules(
            (r"\?{2,}", "?"),  # or a long run takes the square of its length
            (rf"(?i)\s*\?+\s*[-\u2013:]?\s*(?={_ANSWER})", ": "),
            (r" \?+ ?(?=[a-z])", ", possible "),
            (r"(?:^|(?<=[\s(]))\?+(?=[A-Za-z])", "possible "),
            (r"(?<=\w)\s*\?+", " possible."),
        ),
    ),
    # brackets: No edema (stable cardiomegaly). / Effusion (none)
    (
        ("(", "[", "{", ")", "]", "}"),
        _rules(
            (rf"\s*[(\[{{]\s*{_NO}\s*[)\]}}]", ": absent, "),
            (
                rf"[(\[{{]\s*((?:[A-Z][a-z]|(?:an?|there|no|without|not|{SIZE}|{QUALITY})\b)"
                r"[^()\[\]{}]{0,400})[)\]}]",
                r" | \1 | ",
            ),
            (r"[()\[\]{}]", ", "),
        ),
    ),
    # hyphens set apart by a tokenizer: right - sided, non - specific; dashes for colons
    (
        ("- ", " -", "\u2013 ", " \u2013"),
        _rules(
            (
                r"(?i)\b(non|post|pre|peri|para|sub|mid|multi|intra|inter|extra|infra|supra|semi|x|re"
                r"|ill|well|air|low|hydro|cardio|costo|pneumo|ground|swan|follow|year|week|day|month"
                r"|\d+)(?: [-\u2013] ?|[-\u2013] )(?=\w)",
                r"\1 ",
            ),
            (
                r"(?i)(?<=\w)(?: [-\u2013] ?|[-\u2013] )(?=(?:sided|rays?|related|like|shaped"
                r"|appearing|standing|defined|up|to|ganz|glass|\d+)\b)",
                " ",
            ),
            (rf"(?i)(?:^|(?<=[.;|\n]))( ?{_PART}) [-\u2013] ", r"\1: "),
            (rf"(?i) [-\u2013] (?=(?:no|yes|[ny]){_END})", ": "),
        ),
    ),
    (("=",), _rules((r" ?= ?", ": "))),
    # dashes: No edema - cardiomegaly
    (
        ("--", "\u2014", " -", "- ", " \u2013", "\u2013 "),
        _rules(
            (
                r" *(?:-{2,}|\u2014) *| +[-\u2013] +| [-\u2013](?=[A-Za-z])"
                r"|(?<=[a-z])[-\u2013] (?!(?:and|or|to)\b)",
                SEPARATOR,
            ),
        ),
    ),
    # bars, bullets, slashes: No edema | cardiomegaly
    (
        ("|", "\u00a6", "\u2022", "\u25aa", "\u25cf", "\u00b7", "*", "~", ">", "//", " / "),
        _rules(
            (
                r" *(?:[|\u00a6\u2022\u25aa\u25cf\u25e6\u2023\u25a0\u25ba]+|(?<!\d)\u00b7"
                r"|(?<= )(?:~|\*+)(?= )|//+) *",
                SEPARATOR,
            ),
            (r"(?<!left)(?<!right)(?<!\bL)(?<!\bR) +>+ +(?!left|right|[LR]\b|\d)", SEPARATOR),
            (
                rf"\b(?!(?:{SIZE}|{QUALITY})\b)(\w+) / (?=(?:{SIZE}|{QUALITY})\b)",
                r"\1 | ",
            ),
        ),
    ),
    # headings within a line: FINDINGS: clear IMPRESSION: normal
    (
        (":",),
        _rules(
            (r":(?=[A-Za-z])", ": "),
            (rf"(?i): ?n{_END}", ": no"),
            (rf"(?i): ?y{_END}", ": yes"),
            (r"\b[Nn]egatives?: ?(?=[a-z])", "negative for "),
            (r"(?<=\S)\s+(?=[A-Z][A-Z/&]+(?: [A-Z/&]+){0,3}:)", "\n"),
            (r"(?<=[a-z,;)])\s+(?=[A-Z][a-z]+(?:[ /][a-z]+){0,2}:)", "\n"),
        ),
    ),
)
"""(characters without which the rules need not be tried, rules), in the order they are applied."""

_LUNGS = {"L": "left", "R": "right"}
_LOBES = {"U": "upper", "M": "middle", "L": "lower"}
_LOBE = re.compile(r"[LR][ULM]L\b(?<!\w...)")
_ABBREVIATIONS = _rules(
    # The letter comes first, so that the search can skip to it.
    (r"L(?!\w)(?<!\w.)(?<!\d L)", "left"),
    (r"R(?!\w)(?<!\w.)", "right"),
    (r"[\u00d8\u2205\u00f8] ?(?=[A-Za-z])", "no "),
    (r"[Nn]eg(?!\w)\.?", "negative"),
)
_SLASHES = _rules(
    (r"\bw/o\b", "without"),
    (r"\br/o\b", "rule out"),
    (r"\bc/w\b", "consistent with"),
    (r"\bw/", "with "),
    (r"\bb/l\b", "bilateral"),
    (r"\band/or\b", "or"),
    ("/", " or "),
)
_ONE = re.compile(
    r"\b(effusion|pneumothora|consolidation|opacit|nodule|mass|fracture|atelecta|infiltrate|line"
    rf"|tube|catheter)(\w*)\b([^.\n]{{0,80}}?\b(?:an?|the|left|right|{SIZE}|{QUALITY})) one"
    r"(?=\s*(?:[.,;|\n]|$)|\s(?:is|are|on|in|at|of|has|was|persists|remains|with)\b)"
)
"""A pronoun and the finding that it replaces: "no effusion on the right, a small one left"."""
_SPELLING = _rules(
    (r"n't\b", " not"),
    (r"cannot\b", "can not"),
    (r"[-\u2010-\u2015]", " "),
    ("&", " and "),
    ("  +", " "),
    (" ,", ","),
)
_SENTENCE_END = re.compile(r"[.;!?\n](?<!\d\.(?=\d))")


def normalize(text: str) -> str:
    """Lower-case `text`, spell out its abbreviations and signs, separate its statements.

    A newline is where a line, a list item or a section ends, not where a line only wraps. A
    SEPARATOR is where a statement ends within a line: at a dash, a bar, a bullet, and around a
    bracket that is a statement of its own. Hyphens become blanks.
    """
    text = statements_on_lines(plain_text(text))
    for needed, rules in _MARKS:
        if any(mark in text for mark in needed):
            text = _apply(rules, text)
    text = _LOBE.sub(lambda lobe: f"{_LUNGS[lobe[0][0]]} {_LOBES[lobe[0][1]]} lobe", text)
    text = _apply(_ABBREVIATIONS, text).lower()
    if "/" in text:
        text = _apply(_SLASHES, text)
    if " one" in text:
        text = _ONE.sub(r"\1\2\3 \1\2", text)
    return _apply(_SPELLING, text)


def split_sentences(normal: str) -> list[str]:
    """Split a `normalize`d text into sentences; a decimal point does not end one."""
    parts = (part.strip() for part in _SENTENCE_END.split(normal))
    return [part for part in parts if re.search(r"\w", part)]


def _apply(rules: tuple[Rule, ...], text: str) -> str:
    for regex, replacement in rules:
        text = regex.sub(replacement, text)
    return text
