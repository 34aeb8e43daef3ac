"""Symptoms as data: for each class, the short visual phrases that speak of it.

A symptom file is JSON, in one of two forms::

    {"classes": {"nevus": {"phrases": ["The spot is symmetric"], "provenance": "..."}}, ...}
    {"nevus": ["The spot is symmetric"]}

Classes are matched by name, so their order in the file means nothing.
"""

import difflib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import InputError
from core.files import fingerprint, write_json

EDITED = "; edited by hand since"  # what the provenance of a generated class then ends in


@dataclass(frozen=True)
class Symptoms:
    """The phrases of each class, in the order of the class names they were asked for.

    ``fingerprint`` follows from the phrases alone: neither the order of the classes nor what the
    file says besides changes it.
    """

    phrases: dict[str, list[str]]
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self):
        return fingerprint(self.phrases)


def load_symptoms(path, classnames, others=()):
    """Read the phrases of ``classnames`` from the symptom file ``path``.

    Args:
        path: a JSON file in either form.
        classnames: the classes wanted; the result has exactly these, in this order.
        others: further classes that the file may also hold, for a run on part of the classes.

    Raises:
        InputError: the file is missing or malformed, lacks a class, or has one that is unknown.
    """
    classes, _ = read_symptom_file(path)
    for name in classes:
        if name not in classnames and name not in others:
            raise InputError(
                f"{path}: unknown class {name!r}; the dataset's classes are "
                f"{', '.join([*classnames, *others])}: rename it or take it out"
            )
    for name in classnames:
        if name not in classes:
            close = [found for found in classes if found.casefold() == name.casefold()]
            close = close or difflib.get_close_matches(name, classes, n=1)
            hint = f" (it has {close[0]!r})" if close else ""
            raise InputError(f"{path}: class {name!r} is missing{hint}; add it with its phrases")
    return Symptoms(
        phrases={name: classes[name]["phrases"] for name in classnames},
        provenance={name: classes[name]["provenance"] for name in classnames},
    )


def read_symptom_file(path):
    """Read a whole symptom file without asking which classes it should have.

    Returns:
        classes: name -> {"phrases": [...], "provenance": "...", and what else the file says of it}.
        meta: the file's other entries.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such symptom file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a symptom file ({error})") from None
    try:
        data = json.loads(text, object_pairs_hook=lambda pairs: _without_repeats(pairs, path))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    if not isinstance(data, dict) or not data:
        raise InputError(f'{path}: should be an object of classes, {{"class": ["phrase", ...]}}')
    meta = {}
    classes = data
    if isinstance(data.get("classes"), dict):
        classes = data["classes"]
        meta = {key: value for key, value in data.items() if key != "classes"}
        if not classes:
            raise InputError(f"{path}: has no class under 'classes'; add each with its phrases")
    return {name: _check_class(path, name, entry) for name, entry in classes.items()}, meta


def save_symptoms(path, phrases, provenance=None, meta=None, details=None):
    """Write a symptom file in the fuller form; the file is replaced whole or not at all.

    Args:
        phrases: class name -> list of phrases; checked as a file's would be.
        provenance: class name -> where its phrases come from.
        meta: entries of the file besides its classes.
        details: class name -> further entries kept beside its phrases.
    """
    provenance, details = provenance or {}, details or {}
    classes = {}
    for name in phrases:
        entry = {"phrases": phrases[name], "provenance": provenance.get(name, "")}
        # The phrases first: they are what a person reads and edits.
        classes[name] = _check_class(path, name, {**entry, **details.get(name, {}), **entry})
    write_json(path, {"classes": classes, **(meta or {})})


def _without_repeats(pairs, path):
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"{path}: {key!r} stands there twice; keep one")
    return dict(pairs)


def _check_class(path, name, entry):
    if isinstance(entry, list):
        entry = {"phrases": entry}
    if not name.strip():
        raise InputError(f"{path}: a class has an empty name; name it as the dataset does")
    if not isinstance(entry, dict) or not isinstance(entry.get("phrases"), list):
        raise InputError(f"{path}: class {name!r} should be a list of phrases")
    provenance = entry.get("provenance", "")
    if not isinstance(provenance, str):
        raise InputError(f"{path}: class {name!r}: its provenance should be a text")
    phrases = []
    for phrase in entry["phrases"]:
        if not isinstance(phrase, str):
            raise InputError(
                f"{path}: class {name!r}: {json.dumps(phrase)} is no phrase; put it in quotes"
            )
        # Prompts bring their own full stop.
        clean = re.sub(r"\s+", " ", phrase).strip().rstrip(". ")
        if not clean:
            raise InputError(f"{path}: class {name!r} has an empty phrase; take it out")
        if clean.casefold() in (kept.casefold() for kept in phrases):
            raise InputError(f"{path}: class {name!r} has {clean!r} twice; keep one")
        phrases.append(clean)
    if not phrases:
        raise InputError(f"{path}: class {name!r} has no phrases; write at least one")
    generated = entry.get("generated")
    if isinstance(generated, dict) and generated.get("fingerprint") != fingerprint(phrases):
        if not provenance.endswith(EDITED):
            provenance += EDITED
    return {**entry, "phrases": phrases, "provenance": provenance}
