"""From a language model's free text to short phrases that CLIP can read."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from backbones.tokenizers import clip_token_ids
from symptom_generator.chat import Unusable
from symptoms.phrases import LIST_MARK, plain, same

MAX_WORDS = 16  # a phrase is short, as the paper's are
# start, end and full stop, and room for a learned context of four tokens
MAX_TOKENS = 77 - 3 - 4

_HEAD = re.compile(r"^([^:]{1,60}?)\s*(?::|\s[-\u2013\u2014]\s)\s*(.+)$")


def bullets(answer: str) -> list[str]:
    """The list entries of ``answer``, without marks; one with entries below it is a heading."""
    found: list[tuple[int, str]] = []  # (indent, text)
    for line in answer.splitlines():
        match = LIST_MARK.match(line.expandtabs(4))
        if match:
            found.append((len(match[1]), plain(match[2])))
        elif found and line.startswith((" ", "\t")) and line.strip():
            indent, text = found[-1]  # an entry that continues in the next line
            found[-1] = (indent, f"{text} {plain(line)}")
    following = [indent for indent, _ in found[1:]] + [-1]
    leaves = [
        text for (indent, text), after in zip(found, following, strict=False) if after <= indent
    ]
    return [text for text in leaves if text]


class NameFinder:
    """Finds names in texts: whole words in any case, joined by spaces or hyphens, plurals too.

    Only the names whose rarest word is in the text are looked for, so the time for a text does
    not grow with the number of names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        words = {name: _words(name) for name in names}
        counts = Counter(word for found in words.values() for word in set(found))
        # rarest word -> (place among the names, name, pattern)
        self._by_word: dict[str, list[tuple[int, str, re.Pattern[str]]]] = defaultdict(list)
        for place, (name, found) in enumerate(words.items()):
            name_pattern = r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", name.strip())))
            pattern = rf"(?<!\w){name_pattern}(?:e?s|['\u2019]s)?(?!\w)"
            rarest = min(found, key=counts.__getitem__, default="")
            self._by_word[rarest].append((place, name, re.compile(pattern, re.IGNORECASE)))

    def find(self, text: str) -> str | None:
        """The first of the names that ``text`` contains, else None."""
        words = {""}
        for word in _words(text):
            words |= {word, word.removesuffix("s"), word.removesuffix("es")}
        likely = sorted(entry for word in words for entry in self._by_word.get(word, ()))
        return next((name for _, name, pattern in likely if pattern.search(text)), None)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def phrase(feature: str, names: NameFinder) -> tuple[str | None, str | None]:
    """One short phrase that says ``feature`` and contains none of ``names``.

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
        named = names.find(candidate)
        if named:
            why = f"names {named!r}"
        elif candidate and len(candidate.split()) <= MAX_WORDS:
            return candidate, None
    return None, why


def _clause(sentence: str) -> str:
    """As many of the sentence's first clauses as are short enough."""
    sentence = re.sub(r"\s*\([^)]*\)", "", sentence)
    kept = ""
    for part in re.split(r"(?=[;,])", sentence):
        if len((kept + part).split()) > MAX_WORDS:
            break
        kept += part
    return kept


def _trim(text: str) -> str:
    return text.strip().strip(".;:, ").strip()


def read_features(answer: str, avoid: Collection[str]) -> list[dict[str, Any]]:
    """The visual features an answer lists.

    Returns:
        a list of {"feature", "phrase", "dropped"}: ``dropped`` says why one has no phrase.

    Raises:
        Unusable: the answer is not a list, or every entry names what it should not.
    """
    names = NameFinder(avoid)
    features, seen = [], set()
    for text in bullets(answer):
        short, why = phrase(text, names)
        if short and same(short) in seen:
            short, why = None, "said before"
        elif short and tokens(short) > MAX_TOKENS:
            short, why = None, f"longer than {MAX_TOKENS} tokens"
        if short:
            seen.add(same(short))
        features.append({"feature": text, "phrase": short, "dropped": why})
    if not features:
        raise Unusable("the answer is not a list of features")
    if not seen:
        raise Unusable(f"no feature can be used: the first {features[0]['dropped']}")
    return features


def tokens(text: str) -> int:
    """How many tokens CLIP reads ``text`` as, without start and end."""
    return len(clip_token_ids([text])[0])
