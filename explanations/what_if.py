"""The same model with a symptom less or a symptom more."""

import difflib

from core.errors import InputError


def changed_phrases(phrases, drop=(), add=()):
    """Symptoms by class without ``drop`` and with ``add``.

    Args:
        phrases: class name -> phrases.
        drop: phrases; each goes from every class that has it.
        add: (class name, phrase) pairs.

    Raises:
        InputError: a phrase that no class has or the class has already, a class that is not there,
            or one left without symptoms.
    """
    changed = {name: list(symptoms) for name, symptoms in phrases.items()}
    for phrase in drop:
        wanted = _plain(phrase)
        if not any(_plain(symptom) == wanted for s in changed.values() for symptom in s):
            raise InputError(f"no class has the symptom {phrase!r}{_nearest(phrase, changed)}")
        for name, symptoms in changed.items():
            changed[name] = [symptom for symptom in symptoms if _plain(symptom) != wanted]
    for name, phrase in add:
        own = next((known for known in changed if known.casefold() == name.casefold()), None)
        if own is None:
            raise InputError(f"there is no class {name!r}; choose one of {', '.join(changed)}")
        if not _plain(phrase):
            raise InputError(f"the symptom to add to {own!r} is empty")
        if _plain(phrase) in map(_plain, changed[own]):
            raise InputError(f"class {own!r} has the symptom {phrase!r} already")
        changed[own].append(" ".join(phrase.split()))
    for name, symptoms in changed.items():
        if not symptoms:
            raise InputError(f"that leaves class {name!r} without symptoms; keep or add one")
    return changed


def _plain(phrase):
    return " ".join(phrase.split()).rstrip(". ").casefold()


def _nearest(phrase, changed):
    known = [symptom for symptoms in changed.values() for symptom in symptoms]
    close = difflib.get_close_matches(phrase, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {'; '.join(known)}"
