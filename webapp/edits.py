"""The symptoms as the page edits them: their full state, and the run that reads it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from core.errors import InputError, shortened
from core.names import name_key, prompt_name
from engine.loading import LoadedRun
from explanations.what_if import checked_symptom, merge_of
from symptoms import Symptoms
from symptoms.phrases import same

MOST_CLASSES, MOST_PHRASES = 200, 300  # of a state; phrases of one class
LONGEST_NAME = 100  # characters of a new class's name
LARGEST_WEIGHT = 1000.0


class _Phrase(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    on: bool = True
    weight: Annotated[float, Field(ge=0, le=LARGEST_WEIGHT, allow_inf_nan=False)] = 1.0


class _Class(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    name: Annotated[str, Field(alias="class")]
    new: bool = False
    phrases: Annotated[list[_Phrase], Field(max_length=MOST_PHRASES)]


_STATE = TypeAdapter(Annotated[list[_Class], Field(min_length=1, max_length=MOST_CLASSES)])


@dataclass(frozen=True)
class Edited:
    """A checked state.

    Attributes:
        phrases: class name -> the symptoms that are switched on: the trained ones in their order,
            then the others, as ``with_symptoms`` orders them. New classes come last.
        weights: class name -> a factor for each of them.
        new: the classes that were not trained.
        off: class name -> the symptoms that are switched off.
    """

    phrases: Mapping[str, Sequence[str]]
    weights: Mapping[str, Sequence[float]]
    new: Sequence[str]
    off: Mapping[str, Sequence[str]]

    @property
    def key(self) -> str:
        """The same for two states that give the same answers."""
        return json.dumps([dict(self.phrases), dict(self.weights)])

    def state(self) -> list[dict[str, Any]]:
        """As ``Workbench.about`` has it: what is off comes last."""
        return [
            {
                "class": name,
                "new": name in self.new,
                "phrases": [
                    {"text": text, "on": True, "weight": weight}
                    for text, weight in zip(own, self.weights[name], strict=True)
                ]
                + [{"text": text, "on": False, "weight": 1.0} for text in self.off[name]],
            }
            for name, own in self.phrases.items()
        ]


def trained_state(phrases: Mapping[str, Sequence[str]]) -> Edited:
    """The state in which nothing is changed."""
    ones = {name: [1.0] * len(own) for name, own in phrases.items()}
    return Edited(phrases, ones, [], {name: [] for name in phrases})


def edited_state(state: Any, trained: Mapping[str, Sequence[str]]) -> Edited:
    """Check a state that the page sent.

    Args:
        state: as ``Workbench.about`` has it. trained: class name -> the run's symptoms.

    Raises:
        InputError: it is not such a state, a class is unknown, missing or without symptoms, or a
            symptom is empty, too long, not text or there twice.
    """
    try:
        classes = _STATE.validate_python(state)
    except (ValidationError, RecursionError) as error:
        raise InputError(f"these symptoms cannot be read: {_fault(error)}") from None
    by_name: dict[str, _Class] = {}
    new: list[str] = []
    for entry in classes:
        name = _new_name(entry.name, trained) if entry.new else _known(entry.name, trained)
        if name_key(name) in map(name_key, by_name):
            raise InputError(f"the class {shortened(name)!r} is there twice; keep one")
        by_name[name] = entry
        if entry.new:
            new.append(name)
    if missing := [name for name in trained if name not in by_name]:
        raise InputError(
            f"the trained class {missing[0]!r} is missing; a run answers with all its classes"
        )
    phrases, weights, off = {}, {}, {}
    for name in (*trained, *new):
        on, factors, out = _of_class(name, by_name[name], trained.get(name, ()))
        phrases[name], weights[name], off[name] = on, factors, out
    return Edited(phrases, weights, new, off)


def _of_class(
    name: str, entry: _Class, trained: Sequence[str]
) -> tuple[list[str], list[float], list[str]]:
    """The symptoms that are on, their weights, and those that are off."""
    found: list[tuple[str, _Phrase]] = []
    for phrase in entry.phrases:
        text = phrase.text
        if text not in trained:
            text = checked_symptom(name, text, [known for known, _ in found])
        elif text in [known for known, _ in found]:
            raise InputError(f"class {shortened(name)!r} has the symptom {shortened(text)!r} twice")
        found.append((text, phrase))
    # Where a phrase stands in the list of the page has no meaning: as after --drop and --add.
    order = {text: i for i, text in enumerate(trained)}
    found.sort(key=lambda pair: order.get(pair[0], len(order)))
    on = [(text, phrase.weight) for text, phrase in found if phrase.on]
    if not on:
        raise InputError(
            f"this leaves class {shortened(name)!r} without symptoms; keep or add at least one"
        )
    off = [text for text, phrase in found if not phrase.on]
    return [text for text, _ in on], [float(weight) for _, weight in on], off


def class_name_of(name: Any, trained: Mapping[str, Sequence[str]]) -> str:
    """A class of the run, or the name of a new one.

    Raises:
        InputError: the name cannot be that of a class.
    """
    if not isinstance(name, str):
        raise InputError(f"the name of a class is a text, and not {shortened(ascii(name))}")
    return name if name in trained else _new_name(name, trained)


def _known(name: str, trained: Mapping[str, Sequence[str]]) -> str:
    if name not in trained:
        raise InputError(
            f"there is no class {shortened(name)!r}; the run has "
            f"{shortened(', '.join(trained), 300)}"
        )
    return name


def _new_name(name: str, trained: Mapping[str, Sequence[str]]) -> str:
    name = prompt_name(name)
    # Joiners are not printable, but Persian and Indic words need them.
    letters = name.replace("\u200c", "").replace("\u200d", "")
    if not same(name) or not letters.isprintable() or len(name) > LONGEST_NAME:
        raise InputError(
            f"a new class needs a name of 1 to {LONGEST_NAME} printable characters with a letter "
            f"or digit; got {shortened(ascii(name))}"
        )
    if name_key(name) in map(name_key, trained):
        raise InputError(f"the run has a class {shortened(name)!r} already; choose another name")
    return name


def _fault(error: Exception) -> str:
    """The first fault that pydantic found, in one line."""
    if not isinstance(error, ValidationError):
        return "nested too deeply"
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, fault["loc"]))
    return shortened(f"{where}: {fault['msg']}" if where else fault["msg"], 200)


def edited_run(run: LoadedRun, edited: Edited) -> LoadedRun:
    """The run with these symptoms and the same learned parameters; nothing is trained.

    What is switched off is gone as with ``with_symptoms``'s ``drop``, and what was added is there
    as with its ``add``.

    Raises:
        InputError: the run is not explainable, or as ``LoadedRun.reading``.
    """
    merge_of(run)
    phrases = {name: list(own) for name, own in edited.phrases.items()}
    return run.reading(Symptoms(phrases), edited.weights)


def how_new_classes_are_read(run: LoadedRun) -> str:
    """A sentence on what a class is read by that the run was not trained on."""
    learned = [name for name, _ in run.model.learned.named_parameters()]
    if not learned:
        return "zero-shot: by the mean of its phrases, as every class of this run"
    with_context = any(name.split(".")[-1] == "ctx" for name in learned)
    context = "with the context learned for the other classes" if with_context else "as they are"
    return (
        f"zero-shot, beside the trained classes: the run saw no image of it, and reads the plain "
        f"mean of its phrases, {context}"
    )
