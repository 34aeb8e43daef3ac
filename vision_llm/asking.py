"""The two questions about each image, and what their answers come to."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from core.errors import InputError
from symptom_generator.chat import Endpoint, NoImages, Unusable
from symptom_generator.interview import Interview, Question, Unanswered, now
from symptom_generator.transcript import Record, Transcript
from vision_llm.questions import (
    NO_ANSWER,
    SIGNS_SCHEMA,
    ClassAnswer,
    ImageQuestion,
    SignAnswer,
    class_prompt,
    class_schema,
    read_classes,
    read_signs,
    signs_prompt,
)

Value = TypeVar("Value")


@dataclass
class ImageAnswers:
    """What the model said of an image.

    Attributes:
        signs: one ``SignAnswer`` for each sign; "no answer" where it gave none.
        classes: None where it gave no usable answer, as ``why`` says.
    """

    signs: list[SignAnswer] = field(default_factory=list)
    classes: ClassAnswer | None = None
    why: str = ""

    @property
    def outcome(self) -> str:
        """In one line, for answers.csv and the page."""
        if self.classes is None:
            return f"{NO_ANSWER}: {self.why}"
        return "renormalised" if self.classes.renormalised else "answered"


class Asking:
    """The questions of one run; those that the transcript answers are not asked again.

    Args:
        settings: the transcript's ``Settings``. endpoint: None to ask nothing.
        jpeg: the fingerprint of an image -> what is sent of it.
        say: called with a line of progress.
    """

    def __init__(
        self,
        settings: Record,
        transcript: Transcript,
        endpoint: Endpoint | None,
        jpeg: Callable[[str], bytes],
        say: Callable[[str], None],
    ) -> None:
        self.settings, self.transcript, self.say = settings, transcript, say
        self.images: list[str] = settings["images"]
        self.signs = signs_of(settings["phrases"])
        by_one = settings["one_by_one"]
        self.groups = [[sign] for sign in self.signs] if by_one else [self.signs]
        self.interview = Interview(
            settings, transcript, endpoint, lambda q: [jpeg(name) for name in q.shown], say
        )

    def run(self) -> list[ImageAnswers]:
        """Ask what is still unanswered; the answers in the order of the images.

        Raises:
            InputError: the endpoint cannot be asked (further), or no image was answered.
        """
        found = [self.answers(number) for number in range(len(self.images))]
        if not any(answers.classes for answers in found):
            raise InputError(
                f"{self.settings['model']} gave no usable answer for any of {len(found)} images "
                f"(the first: {found[0].why}); no result was written"
            )
        return found

    def answers(self, number: int) -> ImageAnswers:
        """Both steps for one image."""
        found, reasons = ImageAnswers(), []
        for group, question in zip(self.groups, self.sign_questions(number), strict=True):
            signs, why = self._ask(question, partial(read_signs, signs=group))
            found.signs += signs or [SignAnswer(sign, NO_ANSWER) for sign in group]
            reasons += [why] if signs is None else []
        if len(reasons) == len(self.groups):  # without a sign there is no second step
            found.why = reasons[0]
            return found
        classnames = self.settings["classes"]
        question = self.class_question(number, found.signs)
        found.classes, found.why = self._ask(question, partial(read_classes, classnames=classnames))
        return found

    def sign_questions(self, number: int) -> list[ImageQuestion]:
        """The first step: one question, or one for each sign."""
        template, modality = self.settings["prompts"]["signs"], self.settings["modality"]
        shown, total = (self.images[number],), len(self.images)
        return [
            ImageQuestion(
                "signs",
                "",
                signs_prompt(template, modality, group),
                number,
                shown,
                SIGNS_SCHEMA,
                total,
            )
            for group in self.groups
        ]

    def class_question(self, number: int, answers: Sequence[SignAnswer]) -> ImageQuestion:
        """The second step, with the examples before the image."""
        examples = self.settings["shown"].get(self.images[number], ())
        prompt = class_prompt(
            self.settings["prompts"],
            self.settings["modality"],
            self.settings["classes"],
            answers,
            [classname for _, classname in examples],
        )
        shown = (*(name for name, _ in examples), self.images[number])
        schema = class_schema(self.settings["classes"])
        return ImageQuestion("class", "", prompt, number, shown, schema, len(self.images))

    def waiting(self, number: int) -> list[int]:
        """How many images each request for an image would send that is still to be made.

        A question whose answer cannot be used is asked again, which this does not foresee.
        """
        questions = self.sign_questions(number)
        open_ones = [1 for question in questions if not self._is_settled(question)]
        if not open_ones:
            known = self._kept_signs(questions)
            if known is None:
                return []
            if self._is_settled(self.class_question(number, known)):
                return []
        return [*open_ones, 1 + len(self.settings["shown"].get(self.images[number], ()))]

    def _kept_signs(self, questions: Sequence[ImageQuestion]) -> list[SignAnswer] | None:
        """The answers of the first step, all of them settled; None if there is no second."""
        lines = [self.interview.answered(question) for question in questions]
        found: list[SignAnswer] = []
        for group, line in zip(self.groups, lines, strict=True):
            signs = [SignAnswer(sign, NO_ANSWER) for sign in group]
            with contextlib.suppress(Unusable):  # it is asked again
                signs = read_signs(line["answer"], group) if line else signs
            found += signs
        return found if any(lines) else None

    def _is_settled(self, question: Question) -> bool:
        return bool(self.interview.answered(question) or self._no_answer(question))

    def _no_answer(self, question: Question) -> Record | None:
        return self.transcript.find("no answer", self.interview.key(question))

    def _ask(self, question: Question, read: Callable[[str], Value]) -> tuple[Value | None, str]:
        """What ``read`` makes of the answer; or None, and why there is no usable one."""
        if line := self._no_answer(question):
            return None, line["why"]
        try:
            return self.interview.ask(question, read)[1], ""
        except Unanswered as error:
            self.say(f"{question.where}: no usable answer; continuing without it")
            key = self.interview.key(question)
            self.transcript.append(
                {"record": "no answer", "key": key, "why": error.outcome, "time": now()}
            )
            return None, error.outcome
        except NoImages as refusal:
            raise InputError(
                f"{question.where}: {refusal}; name a model that reads images in --model"
            ) from None


def signs_of(phrases: dict[str, list[str]]) -> list[str]:
    """The symptoms of all classes, each once; their order says nothing of the classes."""
    return sorted({phrase for listed in phrases.values() for phrase in listed})
