"""From a language model's free text to short phrases that CLIP can read."""

import re

from symptom_generator.chat import Unusable

MAX_WORDS = 16  # a phrase is short, as the paper's are
# start, end and full stop, and room for a learned context of four tokens
MAX_TOKENS = 77 - 3 - 4

_BULLET = re.compile(
    r"^(\s*)(?:[-*+\u2022\u2023\u25cf\u25aa\u2013\u2014]|\(?\d{1,2}[.):])\s+(.*\S)"
)
_HEAD = re.compile(r"^([^:]{1,60}?)\s*(?::|\s[-\u2013\u2014]\s)\s*(.+)$")


def bullets(answer):
    """The list entries of ``answer``, without marks; one with entries below it is a heading."""
    found = []  # (indent, text)
    for line in answer.splitlines():
        match = _BULLET.match(line.expandtabs(4))
        if match:
            found.append((len(match[1]), plain(match[2])))
        elif found and line.startswith((" ", "\t")) and line.strip():
            indent, text = found[-1]  # an entry that goes on in the next line
            found[-1] = (indent, f"{text} {plain(line)}")
    following = [indent for indent, _ in found[1:]] + [-1]
    leaves = [
        text for (indent, text), after in zip(found, following, strict=False) if after <= indent
    ]
    return [text for text in leaves if text]


def plain(text):
    """``text`` without Markdown, citation marks and quotation marks around it."""
    text = re.sub(r"\*\*|__|`|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # a link's words
    text = re.sub(r"\s*\[\d+\]", "", text)
    return " ".join(text.split()).strip(" \"'\u201c\u201d#")


def names_any(text, words):
    """The first of ``words`` that stands in ``text``, alone or in the plural, else None."""
    for word in words:
        pattern = r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", word.strip())))
        if re.search(rf"(?<!\w){pattern}(?:e?s|['\u2019]s)?(?!\w)", text, re.IGNORECASE):
            return word
    return None


def same(text):
    """What two texts share that differ only in case, spaces and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def phrase(feature, avoid=()):
    """One short phrase that says ``feature`` and names none of the words in ``avoid``.

    "Border: edges are ragged. This is ..." keeps its head and its first sentence, or what of them
    is short enough.

    Returns:
        (phrase, None), or (None, why there is none).
    """
    head, rest = None, feature
    match = _HEAD.match(feature)
    if match:
        head, rest = match[1].strip(), match[2]
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z])", rest)[0]
    candidates = [f"{head}: {sentence}"] if head else []
    candidates += [sentence, _clause(sentence)] + ([head] if head else [])
    why = f"longer than {MAX_WORDS} words"
    for candidate in map(_trim, candidates):
        named = names_any(candidate, avoid)
        if named:
            why = f"names {named!r}"
        elif candidate and len(candidate.split()) <= MAX_WORDS:
            return candidate, None
    return None, why


def _clause(sentence):
    """As many of the sentence's first clauses as are short enough."""
    sentence = re.sub(r"\s*\([^)]*\)", "", sentence)
    kept = ""
    for part in re.split(r"(?=[;,])", sentence):
        if len((kept + part).split()) > MAX_WORDS:
            break
        kept += part
    return kept


def _trim(text):
    return text.strip().strip(".;:, ").strip()


def read_features(answer, avoid):
    """The visual features an answer lists.

    Returns:
        a list of {"feature", "phrase", "dropped"}: ``dropped`` says why one has no phrase.

    Raises:
        Unusable: the answer is no list, or every entry names what it should not.
    """
    features, seen = [], set()
    for text in bullets(answer):
        short, why = phrase(text, avoid)
        if short and same(short) in seen:
            short, why = None, "said before"
        elif short and tokens(short) > MAX_TOKENS:
            short, why = None, f"longer than {MAX_TOKENS} tokens"
        if short:
            seen.add(same(short))
        features.append({"feature": text, "phrase": short, "dropped": why})
    if not features:
        raise Unusable("the answer is no list of features")
    if not seen:
        raise Unusable(f"no feature can be used: the first {features[0]['dropped']}")
    return features


def tokens(text):
    """How many tokens CLIP reads ``text`` as, without start and end."""
    from engine.prompts import (
        token_ids,
    )  # imports torch, which reading a transcript does not need

    return len(token_ids([text])[0])
