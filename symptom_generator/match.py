"""Which features of the text answer do the image answers report?"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from backbones.backbone import Backbone
from engine.prompts import encode_texts
from symptom_generator.chat import Unusable, json_object
from symptom_generator.phrases import bullets
from symptoms.phrases import plain, same

Support = dict[str, Any]  # {"answer": its number, "words", "found": whether it counts}

PROMPT = """\
Below are numbered visual features of {category}, and {count} numbered descriptions of pictures \
of {category}. For each feature, say which descriptions report it, in the same or in other words, \
and quote the words that report it exactly as they stand in the description. Leave a description \
out where it does not report the feature or says the opposite.
Answer with JSON only, one entry for each feature, in this form:
{{"features": [{{"number": 1, "supported_by": [{{"description": 1, "words": "..."}}]}}]}}

Features:
{features}

{descriptions}"""

_SUPPORT = {
    "type": "object",
    "properties": {"description": {"type": "integer"}, "words": {"type": "string"}},
    "required": ["description", "words"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "number": {"type": "integer"},
                    "supported_by": {"type": "array", "items": _SUPPORT},
                },
                "required": ["number", "supported_by"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["features"],
    "additionalProperties": False,
}


def question(template: str, classname: str, features: Sequence[str], answers: Sequence[str]) -> str:
    """The text that asks a model to match ``features`` with the image ``answers``."""
    return template.format(
        category=classname,
        count=len(answers),
        features="\n".join(f"{n}. {text}" for n, text in enumerate(features, start=1)),
        descriptions="\n\n".join(
            f"Description {n}:\n{text}" for n, text in enumerate(answers, start=1)
        ),
    )


def read_matches(
    answer: str, features: Sequence[str], answers: Sequence[str]
) -> list[list[Support]]:
    """What a model's matching says.

    Returns:
        a list parallel to ``features`` of lists of {"answer", "words", "found"}. ``found`` is
        False where the answer does not contain the quoted words: such support does not count.

    Raises:
        Unusable: not the JSON that was asked for.
    """
    entries = json_object(answer).get("features")
    if not isinstance(entries, list):
        raise Unusable('the answer has no list "features"')
    supports: dict[int, list[Support]] = {}
    for entry in entries:
        number = entry.get("number") if isinstance(entry, dict) else None
        if not isinstance(number, int) or not 1 <= number <= len(features) or number in supports:
            raise Unusable(f"the answer's feature numbers are not 1 to {len(features)}, once each")
        listed = entry.get("supported_by")
        if not isinstance(listed, list):
            raise Unusable(f'feature {number} has no list "supported_by"')
        supports[number] = _supports(listed, answers)
    missing = [number for number in range(1, len(features) + 1) if number not in supports]
    if missing:
        raise Unusable(f"the answer leaves out feature {missing[0]}")
    return [supports[number] for number in range(1, len(features) + 1)]


def _supports(listed: list[Any], answers: Sequence[str]) -> list[Support]:
    kept: dict[int, Support] = {}
    for support in listed:
        number = support.get("description") if isinstance(support, dict) else None
        words = support.get("words") if isinstance(support, dict) else None
        if not isinstance(number, int) or not 1 <= number <= len(answers):
            raise Unusable(f"a description is not one of 1 to {len(answers)}")
        if not isinstance(words, str):
            raise Unusable("a description is named without its words")
        found = _quotes(words, answers[number - 1])
        if number not in kept or found:
            kept[number] = {"answer": number, "words": words, "found": found}
    return [kept[number] for number in sorted(kept)]


def _quotes(words: str, answer: str) -> bool:
    """True if the answer contains each part of the quotation, cut at its omissions."""
    parts = [same(part) for part in re.split(r"\.\.\.|\u2026", words)]
    parts = [part for part in parts if part]
    return bool(parts) and all(f" {part} " in f" {same(answer)} " for part in parts)


def statements(answer: str) -> list[str]:
    """What an image answer says, piece by piece: its list entries, or else its sentences."""
    found = bullets(answer)
    if not found:
        text = plain(" ".join(answer.split()))
        found = [part for part in re.split(r"(?<=[.!?])\s+", text) if part]
    return found


def clip_similarities(
    clip_model: Backbone, phrases: dict[str, list[str]], answers: dict[str, list[str]]
) -> tuple[dict[str, list[list[tuple[float, str]]]], float]:
    """Cosines of CLIP's text features.

    Args:
        clip_model: ``Backbone``.
        phrases: class name -> its n_c features' phrases.
        answers: class name -> its N image answers.

    Returns:
        similarities: class name -> [n_c][N] (cosine to the answer's nearest statement, that
            statement).
        threshold: the 90th percentile of the cosines of two different features of one class.
            CLIP finds all texts on one subject similar, each backbone to its own degree. Features
            that a model lists separately are different things, so a statement counts as the same
            only if it is nearer than they are to one another.
    """
    apart: list[float] = []
    similarities = {}
    for classname, texts in phrases.items():
        features = _encode(clip_model, texts)
        cosines = features @ features.T
        apart += cosines[np.triu_indices(len(texts), k=1)].tolist()
        rows: list[list[tuple[float, str]]] = [[] for _ in texts]
        for answer in answers[classname]:
            said = statements(answer)
            cosines = features @ _encode(clip_model, said).T  # [n_c, statements]
            for row, values in zip(rows, cosines, strict=True):
                best = int(values.argmax())
                row.append((round(float(values[best]), 4), said[best]))
        similarities[classname] = rows
    threshold = float(np.percentile(apart, 90)) if apart else 0.9
    return similarities, round(threshold, 4)


def _encode(clip_model: Backbone, texts: Sequence[str]) -> np.ndarray:
    room = clip_model.context_length - clip_model.text.n_special
    # A statement can be a long sentence: its beginning says what it is about.
    features = encode_texts(clip_model, [_beginning(text, room, clip_model) for text in texts])
    array = features.double().cpu().numpy()
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def _beginning(text: str, room: int, clip_model: Backbone) -> str:
    words = text.split()
    while len(words) > 1 and len(clip_model.token_ids([" ".join(words)])[0]) > room:
        words.pop()
    return " ".join(words)
