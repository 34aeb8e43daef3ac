"""The wording of phrases: what is stored, what counts as the same, what is a list mark."""

import re

MAX_LETTERS = 2000  # far more than any CLIP reads

# A list mark at the start of a line: its indent, then the text after it.
LIST_MARK = re.compile(
    r"^(\s*)(?:[-*+\u2022\u2023\u25cf\u25aa\u2013\u2014]|\(?\d{1,2}[.):])\s+(.*\S)"
)
_QUOTES = " \"'\u201c\u201d#"


def clean(phrase: str) -> str:
    """``phrase`` with single spaces and without full stops at its end: prompts add their own."""
    return " ".join(phrase.split()).rstrip(". ")


def same(text: str) -> str:
    """The same key for texts that differ only in case, spaces and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def plain(text: str) -> str:
    """``text`` without Markdown, citation marks and quotation marks around it."""
    text = re.sub(r"\*\*|__|`|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # a link's words
    text = re.sub(r"\s*\[\d+\]", "", text)
    return " ".join(text.split()).strip(_QUOTES)


def without_marks(phrase: str) -> str:
    """``phrase`` without a list mark in front and without Markdown; quotation marks stay."""
    match = LIST_MARK.match(phrase)
    text = plain(match[2] if match else phrase)
    return phrase if text == phrase.strip(_QUOTES) else text
