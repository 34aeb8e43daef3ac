"""The lines of a VisionLLM transcript: every exchange, images as fingerprints alone."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from symptom_generator.transcript import Names, Record, check_template, check_texts

# The prompts, with these fields in braces.
FIELDS = {
    "signs": {"modality", "count", "signs"},
    "class": {"examples", "this", "modality", "classes", "answers"},
    "examples": {"count", "classes"},
}


class Settings(TypedDict):
    """What a run asks; the last such line of a transcript counts."""

    record: Literal["settings"]
    format: Literal[1]
    task: Literal["vision_llm"]
    dataset: str
    split: Literal["test", "val"]
    limit: Annotated[int, Field(ge=1)] | None
    opts: list[str]
    classes: Names
    modality: str
    model: str
    host: str
    temperature: float | None
    prompts: dict[str, str]
    symptoms: str  # as given; "" for the dataset's own
    symptom_file: str
    phrases: dict[str, Names]  # class -> its symptoms
    one_by_one: bool
    examples: Annotated[int, Field(ge=0)]  # for each image
    backbone: str | None  # that finds them
    images: Names  # fingerprints, in the order of the split
    shown: dict[str, list[tuple[str, str]]]  # image -> its examples: fingerprint, class


class Exchange(TypedDict):
    """One question and its answer; ``outcome`` is "accepted" or says what was wrong with it."""

    record: Literal["exchange"]
    key: str
    stage: Literal["signs", "class"]
    number: int
    time: str
    model: str
    host: str
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    outcome: str


class NoAnswer(TypedDict):
    """The model gave no usable answer to a question; it is not asked again."""

    record: Literal["no answer"]
    key: str
    why: str
    time: str


_LINE: TypeAdapter = TypeAdapter(
    Annotated[Settings | Exchange | NoAnswer, Field(discriminator="record")]
)


def read_line(line: bytes) -> Record:
    """The record in ``line``; raises ValueError where it is none."""
    _LINE.validate_json(line, strict=True)
    record = json.loads(line)
    if record["record"] == "exchange":
        check_texts(record)
    if record["record"] == "settings":
        if record["prompts"].keys() != FIELDS.keys():
            raise ValueError(f"'prompts' are not {', '.join(FIELDS)}")
        for name, fields in FIELDS.items():
            check_template(record["prompts"][name], fields)
        if record["classes"] != list(record["phrases"]):
            raise ValueError("'phrases' are not those of the classes")
        wanted = record["examples"]
        if any(len(record["shown"].get(image, ())) != wanted for image in record["images"]):
            raise ValueError(f"'shown' does not name {wanted} examples for each image")
    return record
