"""Symptoms as data: for each class, the short visual phrases that describe it.

A symptom file is JSON, in one of two forms::

    {"classes": {"nevus": {"phrases": ["The spot is symmetric"], "provenance": "..."}}, ...}
    {"nevus": ["The spot is symmetric"]}

Classes are matched by name, so their order in the file has no meaning.
"""

import difflib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from core.errors import InputError, shortened
from core.files import fingerprint, read_json, write_json
from core.names import prompt_name
from symptoms.phrases import MAX_LETTERS, clean, without_marks

NO_FINDING = "no finding"  # the class whose phrases the absence of every finding may share
EDITED = "; edited by hand since"  # the end of a generated class's provenance after an edit
logger = logging.getLogger(__name__)


class SymptomClass(BaseModel):
    """What a symptom file says about one class; further entries are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    phrases: Annotated[
        list[
            Annotated[
                str, Field(max_length=MAX_LETTERS), AfterValidator(clean), Field(min_length=1)
            ]
        ],
        Field(min_length=1),
    ]
    provenance: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, entry: Any) -> Any:
        return {"phrases": entry} if isinstance(entry, list) else entry


# What each kind of pydantic's errors means here.
_FAULTS = {
    "too_short": "class {name} has no phrases; write at least one",
    "phrase_too_short": "class {name} has an empty phrase; remove it",
    "string_too_long": "class {name} has a phrase of more than "
    f"{MAX_LETTERS:,} letters, {{got}}; shorten it",
    "string_type": "class {name}: {got} is not a phrase; put it in quotes",
    "string_pattern_mismatch": "a class has an empty name; name it as the dataset does",
    "provenance": "class {name}: its provenance is not a text; put it in quotes",
    "other": 'class {name} is not a list of phrases; write ["phrase", ...]',
}
_CLASSES = TypeAdapter(dict[Annotated[str, Field(pattern=r"\S")], SymptomClass])


@dataclass(frozen=True)
class Symptoms:
    """The phrases of each class, in the order of the class names that were asked for.

    ``fingerprint`` follows from the phrases alone: neither the order of the classes nor the other
    entries of the file change it. ``source`` names the file in messages.
    """

    phrases: dict[str, list[str]]
    provenance: dict[str, str] = field(default_factory=dict)
    source: str = field(default="the symptoms", compare=False)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.phrases)

    def check_lengths(self, count_tokens: Callable[[str], int], limit: int) -> None:
        """Raise InputError for the first phrase of more than ``limit`` tokens."""
        for name, phrases in self.phrases.items():
            for phrase in phrases:
                if (count := count_tokens(phrase)) > limit:
                    raise InputError(
                        f"{self.source}: class {shortened(repr(name))}: the phrase "
                        f"{shortened(repr(phrase))} has {count} tokens; the text encoder reads at "
                        f"most {limit} beside the context: shorten it"
                    )


@dataclass(frozen=True)
class SymptomFile:
    """A symptom file, read once: all its classes, and all that a run takes from it.

    Attributes:
        classes: class name -> ``SymptomClass``, in the order of the file.
        meta: the file's other entries.
        notes: what a person should look at, one line each.
    """

    path: Path
    classes: dict[str, SymptomClass]
    meta: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> "SymptomFile":
        """Read and check ``path``.

        Raises:
            InputError: the file is missing or malformed.
        """
        return cls.of(read_json(path), path)

    @classmethod
    def of(cls, data: Any, path: str | Path) -> "SymptomFile":
        """As ``read``, of what the JSON file ``path`` holds."""
        path = Path(path)
        if not isinstance(data, dict) or not data:
            raise InputError(
                f'{path}: is not an object of classes; write {{"class": ["phrase", ...]}}'
            )
        meta = {}
        if isinstance(data.get("classes"), dict):
            meta = {key: value for key, value in data.items() if key != "classes"}
            data = data["classes"]
            if not data:
                raise InputError(
                    f"{path}: there is no class under 'classes'; add each with phrases"
                )
        classes, notes = _checked(path, _named_as_prompts(path, data))
        return cls(path, classes, meta, notes)

    @property
    def phrases(self) -> dict[str, list[str]]:
        """Class name -> phrases, of every class in the file."""
        return {name: entry.phrases for name, entry in self.classes.items()}

    @property
    def fingerprint(self) -> str:
        """Of the phrases of every class in the file."""
        return fingerprint(self.phrases)

    def sharing(self, key: str, names: Iterable[str]) -> "SymptomFile":
        """The file with the phrases of ``key`` for each of ``names`` that has none of its own."""
        classes = {name: entry for name, entry in self.classes.items() if name != key}
        if key in self.classes:
            lacking = (name for name in map(prompt_name, names) if name not in classes)
            classes |= dict.fromkeys(lacking, self.classes[key])
        return replace(self, classes=classes)

    def select(self, classnames: Sequence[str], others: Collection[str] = ()) -> Symptoms:
        """The symptoms of ``classnames``, in this order; logs the notes.

        Args:
            classnames: the classes wanted.
            others: further classes that the file may also hold, for a run on part of the classes.

        Raises:
            InputError: the file lacks a class, or has one that is unknown.
        """
        wanted = {name: prompt_name(name) for name in classnames}
        known = {prompt_name(name) for name in (*classnames, *others)}
        missing = [name for name, in_file in wanted.items() if in_file not in self.classes]
        unknown = [name for name in self.classes if name not in known]
        if missing or unknown:
            raise InputError(f"{self.path}: {self._mismatch(missing, unknown, classnames, others)}")
        for note in self.notes:
            logger.warning("%s", note)
        entries = {name: self.classes[in_file] for name, in_file in wanted.items()}
        return Symptoms(
            {name: entry.phrases for name, entry in entries.items()},
            {name: entry.provenance for name, entry in entries.items()},
            str(self.path),
        )

    def _mismatch(
        self,
        missing: list[str],
        unknown: list[str],
        classnames: Sequence[str],
        others: Collection[str],
    ) -> str:
        if missing and unknown:
            close = _closest(missing[0], unknown) or unknown[0]
            return (
                f"the class names differ: the dataset has {_some(missing)}, the file has "
                f"{_some(unknown)} instead; if they mean the same, use one name in both "
                "(DATASET.CLASSNAMES names the dataset's classes), or to test a finished run, map "
                f'them: eval.sh ... --classes "{close}={missing[0]}"'
            )
        if unknown:
            names = shortened(", ".join([*classnames, *others]), 200)
            return (
                f"unknown class {_some(unknown)}; the dataset's classes are {names}: "
                "rename it or remove it"
            )
        similar = _closest(missing[0], self.classes)
        hint = f" (the file has {similar!r})" if similar else ""
        return f"class {_some(missing)} is missing{hint}; add it with its phrases"


def load_symptoms(
    path: str | Path, classnames: Sequence[str], others: Collection[str] = ()
) -> Symptoms:
    """``SymptomFile.read`` and ``SymptomFile.select`` in one."""
    return SymptomFile.read(path).select(classnames, others)


def read_symptom_file(path: str | Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The classes of a symptom file as dictionaries, and the file's other entries."""
    file = SymptomFile.read(path)
    return {name: entry.model_dump() for name, entry in file.classes.items()}, file.meta


def save_symptoms(
    path: str | Path,
    phrases: Mapping[str, list[str]],
    provenance: Mapping[str, str] | None = None,
    meta: Mapping[str, Any] | None = None,
    details: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a symptom file in the fuller form; the file is replaced atomically.

    Args:
        phrases: class name -> list of phrases; checked as a file's would be.
        provenance: class name -> where its phrases come from.
        meta: entries of the file besides its classes.
        details: class name -> further entries kept beside its phrases.
    """
    write_json(path, symptom_content(path, phrases, provenance, meta, details))


def symptom_content(
    path: str | Path,
    phrases: Mapping[str, list[str]],
    provenance: Mapping[str, str] | None = None,
    meta: Mapping[str, Any] | None = None,
    details: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """What ``save_symptoms`` writes, checked; ``path`` is for messages."""
    provenance, details = provenance or {}, details or {}
    entries = {
        name: {**details.get(name, {}), "phrases": listed, "provenance": provenance.get(name, "")}
        for name, listed in phrases.items()
    }
    classes, _ = _checked(Path(path), entries)
    # The phrases first: they are what a person reads and edits.
    written = {name: entry.model_dump() for name, entry in classes.items()}
    return {"classes": written, **(meta or {})}


def _named_as_prompts(path: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """``entries`` with a space for each ``_`` of a class name: folder names are read too."""
    named: dict[str, Any] = {}
    for name, entry in entries.items():
        if named.setdefault(prompt_name(name), entry) is not entry:
            raise InputError(
                f"{path}: class {shortened(repr(name))} is there twice ('_' is a space); keep one"
            )
    return named


def _checked(path: Path, entries: Mapping[str, Any]) -> tuple[dict[str, SymptomClass], tuple]:
    """The classes in ``entries`` without exact repeats, and the notes on them."""
    try:
        classes = _CLASSES.validate_python(entries)
    except ValidationError as error:
        raise InputError(f"{path}: {_complaint(error)}") from None
    dropped: list[str] = []
    differing: list[str] = []
    marked: list[str] = []
    for name, entry in classes.items():
        kept: dict[str, str] = {}
        for phrase in entry.phrases:
            place = f"class {shortened(repr(name))} has {shortened(repr(phrase))}"
            if before := kept.get(phrase.casefold()):
                (dropped if before == phrase else differing).append(place)
                continue
            kept[phrase.casefold()] = phrase
            if (text := without_marks(phrase)) != phrase:
                marked.append(f"{place}, better {shortened(repr(text))}")
        entry.phrases = list(kept.values())
        generated = (entry.model_extra or {}).get("generated")
        if isinstance(generated, dict) and generated.get("fingerprint") != fingerprint(
            entry.phrases
        ):
            entry.provenance = entry.provenance.removesuffix(EDITED) + EDITED
    if differing:
        raise InputError(f"{path}: {differing[0]} twice{_more(differing)}; keep one of each")
    notes = []
    if dropped:
        notes.append(f"{path}: repeated phrases are read once: {dropped[0]} twice{_more(dropped)}")
    if marked:
        notes.append(
            f"{path}: list marks and Markdown are read as words: {marked[0]}{_more(marked)}"
        )
    return classes, tuple(notes)


def _complaint(error: ValidationError) -> str:
    """The first fault that pydantic found, in one line, and the number of the others."""
    faults = error.errors(include_url=False, include_context=False)
    name, *place = faults[0]["loc"]
    kind = faults[0]["type"]
    if "provenance" in place:
        kind = "provenance"
    elif kind == "too_short" and len(place) > 1:
        kind = "phrase_too_short"
    names = {"name": shortened(repr(name)), "got": shortened(repr(faults[0]["input"]))}
    what, _, advice = _FAULTS.get(kind, _FAULTS["other"]).partition(";")
    return f"{what.format(**names)}{_more(faults)};{advice.format(**names)}"


def _closest(name: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that most likely means ``name``, if any."""
    folded = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    inside = (k for k in folded if k in name.casefold() or name.casefold() in k)
    return folded.get(next(iter(close), next(inside, "")))


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    return shortened(repr(first)) + (f" and {len(rest)} more" if rest else "")


def _more(found: list) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
