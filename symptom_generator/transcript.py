"""Every exchange with the model, one JSON line each: to continue from, to rebuild from, to read.

Images appear as fingerprints, never as bytes or names. ``generation_line`` reads a line of the
generator of symptoms; ``vision_llm`` has lines of its own in the same file format.
"""

import json
import os
import string
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from core.errors import InputError, shortened

FIELDS = {"category", "modality", "count", "features", "descriptions"}


def check_template(text: str, fields: Collection[str] = FIELDS) -> str:
    """``text``; raises ValueError where it has a field in braces that is not one of ``fields``."""
    for _, name, form, conversion in string.Formatter().parse(text):
        if name is not None and (name not in fields or form or conversion):
            raise ValueError(f"a prompt has the field {{{name}}}")
    return text


Template = Annotated[str, AfterValidator(check_template)]
Names = Annotated[list[str], Field(min_length=1)]


class Prompts(TypedDict):
    """The prompts, with fields in braces."""

    text: Template
    pictures: Template
    match: Template


class Settings(TypedDict):
    """The settings of a generation; the last such line of a transcript counts."""

    record: Literal["settings"]
    format: Literal[1]
    dataset: str | None
    classes: Names
    modality: str
    model: str
    host: str
    temperature: float | None
    prompts: Prompts
    no_pictures: str | None  # why no images are shown
    seed: int
    support: Annotated[int, Field(ge=1)]  # image answers needed to keep a feature
    match: Literal["llm", "clip"]
    backbone: str | None
    similarity: float | None
    avoid: list[str]
    max: Annotated[int, Field(ge=1)]  # phrases a class
    pictures: dict[str, Annotated[list[Names], Field(min_length=1)]]  # class -> its sheets


class Exchange(TypedDict):
    """One question and its answer; ``outcome`` is "accepted" or says what was wrong with it."""

    record: Literal["exchange"]
    key: str
    # "class", which Python reserves, is checked by ``Transcript``.
    stage: Literal["text", "pictures", "match"]
    number: int
    time: str
    model: str
    host: str
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    outcome: str
    answer: NotRequired[str]
    answered_by: NotRequired[str]


class NoImagesNote(TypedDict):
    """The endpoint accepts no images; the symptoms come from the text alone."""

    record: Literal["no pictures"]
    key: str
    why: str


class Similarity(TypedDict):
    """CLIP's matching of features and image answers."""

    record: Literal["similarity"]
    key: str
    time: str
    threshold: float
    similarities: dict[str, list[list[tuple[float, str]]]]  # class -> [feature][answer]


Record = dict[str, Any]
_LINE: TypeAdapter = TypeAdapter(
    Annotated[Settings | Exchange | NoImagesNote | Similarity, Field(discriminator="record")]
)
_BEGIN = b'{"record"'


class Transcript:
    """The lines of one transcript; new ones are on the disk before the next question is asked."""

    def __init__(
        self,
        path: str | Path,
        keep: bool = True,
        fresh: bool = False,
        read_line: Callable[[bytes], Record] | None = None,
    ) -> None:
        """Read ``path`` if it exists, unless ``fresh``. ``keep=False`` never writes to it.

        Args:
            read_line: bytes -> the record in them; raises ValueError for what is no line. A
                generation's lines by default.
        """
        self.path, self.keep = Path(path), keep
        self.read_line = read_line or generation_line
        self.lines: list[Record] = []
        self._accepted: dict[tuple[str, str], Record] = {}  # (kind, key) -> the last line
        self._half_at: int | None = None  # where a line begins that a cut run left unfinished
        self._unended = False  # whether the last line lacks its end
        if self.path.exists() and not fresh:
            self._read()

    def _read(self) -> None:
        try:
            data, read = self.path.read_bytes(), 0
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None
        for number, line in enumerate(data.splitlines(keepends=True), start=1):
            try:
                self._add(self.read_line(line))
            except ValueError as error:
                cut = line.startswith(_BEGIN) or _BEGIN.startswith(line)
                if cut and not line.endswith(b"\n"):
                    self._half_at = read  # what it would have said is asked again
                    break
                raise InputError(
                    f"{self.path}: line {number} is not a line of a transcript ({_why(error)}); "
                    "move the file away, or give --fresh to start over"
                ) from None
            read += len(line)
            self._unended = not line.endswith(b"\n")

    @property
    def settings(self) -> Record | None:
        """The settings of the last run, or None."""
        return next((r for r in reversed(self.lines) if r["record"] == "settings"), None)

    def find(self, kind: str, key: str) -> Record | None:
        """The last line of ``kind`` for ``key`` that was accepted, or None."""
        return self._accepted.get((kind, key))

    def _add(self, record: Record) -> None:
        self.lines.append(record)
        if "key" in record and record.get("outcome", "accepted") == "accepted":
            self._accepted[record["record"], record["key"]] = record

    def append(self, record: Record) -> None:
        """Keep ``record``, on the disk too."""
        self._add(record)
        if not self.keep:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with open(self.path, "ab") as file:
            if self._half_at is not None:
                file.truncate(self._half_at)
                self._half_at = None
            file.write(b"\n" * self._unended + line)
            file.flush()
            os.fsync(file.fileno())
        self._unended = False


def generation_line(line: bytes) -> Record:
    """The record in ``line``; raises ValueError where it is none."""
    _LINE.validate_json(line, strict=True)
    record = json.loads(line)
    if record["record"] == "settings" and not record["no_pictures"]:
        if missing := [name for name in record["classes"] if name not in record["pictures"]]:
            raise ValueError(f"'pictures' lacks the class {missing[0]!r}")
    if record["record"] == "exchange":
        check_texts(record, ("class",))
    return record


def check_texts(exchange: Record, names: tuple[str, ...] = ()) -> None:
    """Raise ValueError where one of ``names``, or of what an accepted answer has, is no text."""
    accepted = exchange["outcome"] == "accepted"
    wanted = (*names, "answer", "answered_by") if accepted else names
    if missing := [name for name in wanted if not isinstance(exchange.get(name), str)]:
        raise ValueError(f"{missing[0]!r} is not a text")


def _why(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return shortened(str(error), 120)
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"][1:]))
    return shortened(f"{place}: {first['msg']}" if place else first["msg"], 120)
