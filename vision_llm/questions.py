"""What is asked about an image, and what is read from the answers; nothing is guessed from them.

Two steps, as in CBVLM (Patricio et al. 2025, https://arxiv.org/abs/2501.12266) and the two-step
approach before it (https://arxiv.org/abs/2411.05609): the signs first, then the class given the
answers. As there, the model is not told which class a sign speaks for. They ask for one of lettered
options; here the answers are JSON with a confidence, so that areas under curves can be computed.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.names import name_key, prompt_name
from symptom_generator.chat import Unusable, json_object
from symptom_generator.interview import Question
from symptom_generator.transcript import Record

STEPS = {"signs": "signs", "class": "class"}  # stage of a question -> its name in messages
PRESENT, ABSENT, UNCLEAR, NO_ANSWER = "present", "absent", "unclear", "no answer"
WORDS = {
    PRESENT: PRESENT,
    ABSENT: ABSENT,
    UNCLEAR: UNCLEAR,
    "yes": PRESENT,
    "no": ABSENT,
    "uncertain": UNCLEAR,
}
SUM_OFF = 0.01  # probabilities that sum to 1 within this are taken as they are

SIGNS_PROMPT = """\
This image comes from a set of {modality}. Below are {count} numbered visual signs. For each \
sign, say whether it is present in the image, absent, or unclear because the image does not show \
enough to tell, and how confident you are in this answer, from 0 to 1. Judge only what is visible.
This is research on images whose classes are known; no patient is treated by your answer.
Answer with JSON only, one entry for each sign, in this form:
{{"signs": [{{"number": 1, "answer": "present", "confidence": 0.8}}]}}

Signs:
{signs}"""

CLASS_PROMPT = """\
{examples}{this} image comes from a set of {modality}. It belongs to exactly one of these classes: \
{classes}.
You were asked about visual signs in this image before. Your answers were:
{answers}

Given the image and these answers, how probable is each class? The probabilities sum to 1.
This is research on images whose classes are known; no patient is treated by your answer.
Answer with JSON only, one entry for each class, in this form:
{{"classes": [{{"class": "name", "probability": 0.1}}]}}"""

EXAMPLES_PROMPT = """\
The first {count} images are examples. Their classes are, in this order: {classes}.
"""
PROMPTS = {"signs": SIGNS_PROMPT, "class": CLASS_PROMPT, "examples": EXAMPLES_PROMPT}


@dataclass(frozen=True)
class SignAnswer:
    """What the model says of a sign; ``confidence`` is None where none can be read."""

    sign: str
    answer: str
    confidence: float | None = None

    @property
    def text(self) -> str:
        """As the second question repeats it."""
        sure = "" if self.confidence is None else f" (confidence {self.confidence:.2f})"
        return f"- {self.sign}: {self.answer}{sure}"


@dataclass(frozen=True)
class ClassAnswer:
    """``probabilities``: one a class, sum 1; ``renormalised``: they were given with another sum."""

    probabilities: tuple[float, ...]
    renormalised: bool


@dataclass(frozen=True)
class ImageQuestion(Question):
    """A question about image ``number`` of ``total``, whose file is never named."""

    total: int = 0

    @property
    def where(self) -> str:
        return f"image {self.number + 1} of {self.total}, {STEPS[self.stage]}"

    @property
    def entries(self) -> Record:
        return {"stage": self.stage, "number": self.number}


def signs_prompt(template: str, modality: str, signs: Sequence[str]) -> str:
    """The question of the first step."""
    listed = "\n".join(f"{number}. {sign}" for number, sign in enumerate(signs, start=1))
    return template.format(modality=modality, count=len(signs), signs=listed)


def class_prompt(
    prompts: dict[str, str],
    modality: str,
    classnames: Sequence[str],
    answers: Sequence[SignAnswer],
    examples: Sequence[str],
) -> str:
    """The question of the second step.

    Args:
        examples: the class of each example image, in the order in which they are shown.
    """
    shown = ", ".join(f"{n}. {prompt_name(name)}" for n, name in enumerate(examples, start=1))
    first = prompts["examples"].format(count=len(examples), classes=shown) if examples else ""
    return prompts["class"].format(
        examples=first,
        this="The last" if examples else "This",
        modality=modality,
        classes=", ".join(map(prompt_name, classnames)),
        answers="\n".join(answer.text for answer in answers),
    )


def _schema(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    entry = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": entry}},
        "required": [name],
        "additionalProperties": False,
    }


SIGNS_SCHEMA = _schema(
    "signs",
    {
        "number": {"type": "integer"},
        "answer": {"type": "string", "enum": [PRESENT, ABSENT, UNCLEAR]},
        "confidence": {"type": "number"},
    },
)


def class_schema(classnames: Sequence[str]) -> dict[str, Any]:
    """The form of the answer of the second step."""
    names = [prompt_name(name) for name in classnames]
    classes = {"type": "string", "enum": names}
    return _schema("classes", {"class": classes, "probability": {"type": "number"}})


def read_signs(text: str, signs: Sequence[str]) -> list[SignAnswer]:
    """The answers for ``signs``, in their order.

    Raises:
        Unusable: it is not JSON, or a sign has no answer, or two, or another than was offered.
    """
    found: dict[int, SignAnswer] = {}
    for entry in _entries(text, "signs"):
        number = _integer(entry.get("number"))
        if number is None or not 1 <= number <= len(signs) or number in found:
            raise Unusable(f"the answer's sign numbers are not 1 to {len(signs)}, once each")
        word = entry.get("answer")
        answer = WORDS.get(word.strip().casefold().rstrip(".")) if isinstance(word, str) else None
        if answer is None:
            raise Unusable(f"the answer for sign {number} is not present, absent or unclear")
        sure = _number(entry.get("confidence"))
        if sure is not None:
            sure = sure / 100 if 1 < sure <= 100 else sure
            sure = sure if 0 <= sure <= 1 else None
        found[number] = SignAnswer(signs[number - 1], answer, sure)
    missing = [number for number in range(1, len(signs) + 1) if number not in found]
    if missing:
        raise Unusable(f"the answer leaves out sign {missing[0]}")
    return [found[number] for number in range(1, len(signs) + 1)]


def read_classes(text: str, classnames: Sequence[str]) -> ClassAnswer:
    """The probabilities of ``classnames``; divided by their sum where it is not 1.

    Raises:
        Unusable: it is not JSON; a class is missing, named twice or unknown; a probability is not
            a number from 0 to 1, or a percentage of ones that sum to about 100; all are 0.
    """
    known = {name_key(name): name for name in classnames}
    given: dict[str, float] = {}
    for entry in _entries(text, "classes"):
        name = known.get(name_key(str(entry.get("class"))))
        if name is None or name in given:
            raise Unusable("the answer's classes are not the ones that were named, once each")
        value = _number(entry.get("probability"))
        if value is None or not 0 <= value <= 100:
            raise Unusable(f"the probability of {name} is not a number from 0 to 1")
        given[name] = value
    missing = [name for name in classnames if name not in given]
    if missing:
        raise Unusable(f"the answer leaves out the class {missing[0]}")
    values = [given[name] for name in classnames]
    total = sum(values)
    whole = 100.0 if max(values) > 1 else 1.0
    if whole > 1 and abs(total - whole) > 10:
        raise Unusable("the probabilities are neither from 0 to 1 nor percentages that sum to 100")
    if total <= 0:
        raise Unusable("every class has the probability 0")
    off = abs(total / whole - 1) > SUM_OFF
    return ClassAnswer(tuple(value / total for value in values), off)


def _entries(text: str, name: str) -> list[dict[str, Any]]:
    """The list under ``name``, or {key: value} there as such a list of classes."""
    listed = json_object(text).get(name)
    if isinstance(listed, dict) and name == "classes":
        listed = [{"class": key, "probability": value} for key, value in listed.items()]
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise Unusable(f'the answer has no list "{name}"')
    return listed


def _integer(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _number(value: Any) -> float | None:
    """A number, also one written as text or with a percent sign; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,3}(\.\d{1,18})?\s*%?\s*", value):
        value = float(value.strip().rstrip("%"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
