"""The same learned parameters with a symptom removed or added."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from core.errors import InputError, shortened
from engine.loading import LoadedRun
from engine.symptom_model import SymptomModel
from symptoms import Symptoms

LONGEST = 1000  # characters of a symptom; the text encoder reads far fewer


def merge_of(run: LoadedRun) -> tuple[SymptomModel, Symptoms]:
    """The model of an explainable run, and its symptoms.

    Raises:
        InputError: the run is not explainable.
    """
    if not run.explainable:
        if run.findings:
            raise InputError(
                f"{run.folder}: has several findings an image; explanations need one class an image"
            )
        lacks = "does not read symptoms"
        if run.symptoms is not None:
            lacks = "reads symptoms, but its class scores are not sums over them"
        raise InputError(
            f"{run.folder}: {run.cfg.TRAINER.NAME} {lacks}; explanations need a run of ViP or "
            "ConceptBottleneck, or of ZeroshotCLIP with PROMPTS=symptoms"
        )
    assert isinstance(run.model, SymptomModel) and run.symptoms is not None
    return run.model, run.symptoms


def with_symptoms(
    run: LoadedRun, drop: Iterable[str] = (), add: Iterable[tuple[str, str]] = ()
) -> LoadedRun:
    """The run with other symptoms and the same learned parameters; nothing is trained.

    Args:
        run: an explainable run; it does not change.
        drop: symptoms to remove. add: (class name, symptom) pairs.

    Raises:
        InputError: the run is not explainable, its method learns a weight for each symptom and
            has none for an added one, or as in ``changed_phrases``.
    """
    _, symptoms = merge_of(run)
    return run.reading(Symptoms(changed_phrases(symptoms.phrases, drop, add)))


def changed_phrases(
    phrases: Mapping[str, Sequence[str]],
    drop: Iterable[str] = (),
    add: Iterable[tuple[str, str]] = (),
) -> dict[str, list[str]]:
    """Symptoms by class without ``drop`` and with ``add``.

    Args:
        phrases: class name -> symptoms.
        drop: symptoms; each is removed from every class that has it.
        add: (class name, symptom) pairs.

    Raises:
        InputError: no class has the symptom to drop, the class has the symptom to add already, a
            class is unknown or left without symptoms, or a symptom is empty, too long or not text.
    """
    changed = {name: list(symptoms) for name, symptoms in phrases.items()}
    for symptom in drop:
        _remove(changed, symptom)
    for name, symptom in add:
        _append(changed, name, symptom)
    for name, symptoms in changed.items():
        if not symptoms:
            raise InputError(
                f"this leaves class {shortened(name)!r} without symptoms; keep or add at least one"
            )
    return changed


def _remove(changed: dict[str, list[str]], symptom: str) -> None:
    known = [own for symptoms in changed.values() for own in symptoms]
    if _folded(symptom) not in map(_folded, known):
        raise InputError(f"no class has the symptom {shortened(symptom)!r}{_hint(symptom, known)}")
    for name, symptoms in changed.items():
        changed[name] = [own for own in symptoms if _folded(own) != _folded(symptom)]


def _append(changed: dict[str, list[str]], name: str, symptom: str) -> None:
    own = next((known for known in changed if known.casefold() == name.casefold()), None)
    if own is None:
        raise InputError(
            f"there is no class {shortened(name)!r}; choose one of {', '.join(changed)}"
        )
    changed[own].append(checked_symptom(own, symptom, changed[own]))


def checked_symptom(name: str, symptom: str, there: Sequence[str] = ()) -> str:
    """A symptom to add to class ``name``, with single spaces.

    Args:
        there: the symptoms that the class has already.

    Raises:
        InputError: it is empty, too long, not text, or there already.
    """
    if not _folded(symptom):
        raise InputError(f"the symptom to add to class {shortened(name)!r} is empty")
    if len(symptom) > LONGEST:
        raise InputError(
            f"the symptom {shortened(symptom)!r} to add to class {shortened(name)!r} has "
            f"{len(symptom):,} characters; the limit is {LONGEST:,}: shorten it"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in symptom):
        raise InputError(
            f"the symptom {shortened(symptom)!r} to add to class {shortened(name)!r} is not valid "
            "UTF-8 text; type it again"
        )
    if _folded(symptom) in map(_folded, there):
        raise InputError(
            f"class {shortened(name)!r} already has the symptom {shortened(symptom)!r}"
        )
    return " ".join(symptom.split())


def _folded(symptom: str) -> str:
    """A symptom without what does not tell two apart: case, spaces, a full stop at the end."""
    return " ".join(symptom.split()).rstrip(". ").casefold()


def _hint(symptom: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(symptom[:LONGEST], known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; the symptoms are: {shortened('; '.join(known), 400)}"
