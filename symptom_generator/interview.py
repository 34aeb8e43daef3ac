"""One question to a language model; its answer is read from the transcript or asked for."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from core.errors import InputError
from core.files import fingerprint
from symptom_generator.chat import (
    Broken,
    Endpoint,
    Message,
    NoImages,
    Reply,
    Unusable,
    user_message,
)
from symptom_generator.transcript import Record, Transcript

ATTEMPTS = 3  # a question is asked again at most twice
# Stage, as the transcript calls it -> its name in messages.
STAGES = {"text": "stage 1, text", "pictures": "stage 2, images", "match": "refining"}
Value = TypeVar("Value")


class Unanswered(InputError):
    """The model gave no usable answer, however often it was asked; ``outcome`` says why."""

    def __init__(self, message: str, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True)
class Question:
    """What is asked about a class; ``vision_llm`` asks others, about an image.

    Attributes:
        stage: one of ``STAGES``. number: of the sheet. shown: fingerprints of its images.
        schema: a JSON schema that the answer should follow.
    """

    stage: str
    classname: str
    prompt: str
    number: int = 0
    shown: Sequence[str] = ()
    schema: dict[str, Any] | None = None

    @property
    def where(self) -> str:
        """The class and the stage, for messages."""
        return f"{self.classname}, {STAGES[self.stage]}" + (
            f" {self.number + 1}" if self.shown else ""
        )

    @property
    def entries(self) -> Record:
        """What the transcript says of it."""
        return {"class": self.classname, "stage": self.stage, "number": self.number}


class Interview:
    """Questions to one model at one endpoint, each asked once.

    Args:
        settings: "host", "model" and "temperature" of the questions.
        transcript: ``Transcript``; answered questions are read from it.
        endpoint: ``Endpoint``, or None to ask nothing.
        images: a question -> JPEG bytes, called for images that have to be sent.
        say: called with a line of progress.
    """

    def __init__(
        self,
        settings: Record,
        transcript: Transcript,
        endpoint: Endpoint | None,
        images: Callable[[Question], Sequence[bytes]] | None,
        say: Callable[[str], None],
    ) -> None:
        self.settings, self.transcript, self.endpoint = settings, transcript, endpoint
        self.images, self.say = images, say

    @property
    def endpoint_key(self) -> str:
        """The name of the endpoint in the transcript."""
        return fingerprint([self.settings[name] for name in ("host", "model", "temperature")])

    def answered(self, question: Question) -> Record | None:
        """The transcript's line that answers ``question``, if there is one."""
        return self.transcript.find("exchange", self.key(question))

    def ask(self, question: Question, read: Callable[[str], Value]) -> tuple[Record, Value]:
        """The line of the accepted answer, and what ``read`` makes of it.

        Raises:
            Unanswered: the model itself gives no usable answer.
            InputError: naming the question.
            NoImages: the endpoint does not accept images.
        """
        if line := self.answered(question):
            try:
                return line, read(line["answer"])
            except Unusable as why:
                if self.endpoint is None:
                    raise InputError(f"{question.where}: the transcript's answer: {why}") from None
        if self.endpoint is None:
            raise InputError(
                f"{self.transcript.path}: has no answer for {question.where}; without --replay the "
                "same generation continues from there"
            )
        images = self.images(question) if question.shown and self.images else ()
        messages = [user_message(question.prompt, images)]
        for attempt in range(1, ATTEMPTS + 1):
            self.say(f"{question.where}: asking {self.settings['model']} at {self.endpoint.host}")
            record = self._record(question, attempt, _for_the_record(messages, question, images))
            value, unread, broken = self._attempt(self.endpoint, question, messages, record, read)
            if value is not None:
                return record, value
            again = "; asking again" if attempt < ATTEMPTS else ""
            self.say(f"{question.where}: {record['outcome']}{again}")
            if unread:  # a proper answer in the wrong form: say what is wrong with it
                wrong = f"That answer cannot be used: {record['outcome']}. Please answer as asked."
                messages = [messages[0], {"role": "assistant", "content": unread}]
                messages.append(user_message(wrong))
        message = (
            f"{question.where}: {record['outcome']} (asked {ATTEMPTS} times); the other answers "
            "are kept, so the same command asks only this again, and another --model may answer"
        )
        raise InputError(message) if broken else Unanswered(message, record["outcome"])

    def _attempt(
        self,
        endpoint: Endpoint,
        question: Question,
        messages: list[Message],
        record: Record,
        read: Callable[[str], Value],
    ) -> tuple[Value | None, str, bool]:
        """Ask once and keep what came in ``record`` and the transcript.

        Returns:
            what ``read`` makes of the answer, None if it cannot be used; an answer in the wrong
            form; whether what came is no answer of the model.
        """
        started, reply, outcome, value, unread = time.monotonic(), Reply(), "accepted", None, ""
        broken, sent = False, endpoint.requests
        try:
            reply = endpoint.ask(messages, question.schema)
            value = read(reply.text)
        except Unusable as problem:
            outcome, unread, broken = str(problem), reply.text, isinstance(problem, Broken)
            reply = reply if reply.text else problem.reply or reply
        except (InputError, NoImages) as error:
            requests = endpoint.requests - sent
            self.transcript.append({**record, "requests": requests, "outcome": str(error)})
            if isinstance(error, InputError):
                raise InputError(f"{question.where}: {error}") from None
            raise
        record |= {
            "schema": question.schema is not None and endpoint.schemas,
            "answer": reply.text,
            "answered_by": reply.model,
            "finish": reply.finish,
            "usage": reply.usage,
            "requests": endpoint.requests - sent,
            "seconds": round(time.monotonic() - started, 2),
            "outcome": outcome,
        }
        self.transcript.append(record)
        return value, unread, broken

    def _record(self, question: Question, attempt: int, messages: list[Message]) -> Record:
        return {
            "record": "exchange",
            "key": self.key(question),
            **question.entries,
            "attempt": attempt,
            "time": now(),
            "model": self.settings["model"],
            "host": self.settings["host"],
            "messages": messages,
        }

    def key(self, question: Question) -> str:
        """The name of the question in the transcript."""
        parts = [self.endpoint_key, question.stage, question.prompt, list(question.shown)]
        return fingerprint(parts)


def _for_the_record(
    messages: list[Message], question: Question, images: Sequence[bytes]
) -> list[Message]:
    """``messages`` with fingerprints in the place of images."""
    kept = []
    for message in messages:
        body = message["content"]
        if not isinstance(body, str):
            body = "\n".join(part["text"] for part in body if part["type"] == "text")
        entry = {"role": message["role"], "text": body}
        if body is not message["content"]:
            entry |= {"pictures": list(question.shown), "sheet": fingerprint(b"".join(images))}
        kept.append(entry)
    return kept


def now() -> str:
    """The time in UTC, as the transcript writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
