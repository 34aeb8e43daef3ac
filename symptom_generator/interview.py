"""One question to a language model; its answer is read from the transcript or asked for."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from core.errors import InputError
from core.files import fingerprint
from symptom_generator.chat import Endpoint, Message, NoImages, Reply, Unusable, user_message
from symptom_generator.transcript import Record, Transcript

ATTEMPTS = 3  # a question is asked again at most twice
# Stage, as the transcript calls it -> its name in messages.
STAGES = {"text": "stage 1, text", "pictures": "stage 2, images", "match": "refining"}
Value = TypeVar("Value")


@dataclass(frozen=True)
class Question:
    """What is asked about a class.

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


class Interview:
    """Questions to one model at one endpoint, each asked once.

    Args:
        settings: "host", "model" and "temperature" of the questions.
        transcript: ``Transcript``; answered questions are read from it.
        endpoint: ``Endpoint``, or None to ask nothing.
        sheets: (class, number) -> JPEG bytes, called for images that have to be sent.
        say: called with a line of progress.
    """

    def __init__(
        self,
        settings: Record,
        transcript: Transcript,
        endpoint: Endpoint | None,
        sheets: Callable[[str, int], bytes] | None,
        say: Callable[[str], None],
    ) -> None:
        self.settings, self.transcript, self.endpoint = settings, transcript, endpoint
        self.sheets, self.say = sheets, say

    @property
    def endpoint_key(self) -> str:
        """The name of the endpoint in the transcript."""
        return fingerprint([self.settings[name] for name in ("host", "model", "temperature")])

    def answered(self, question: Question) -> Record | None:
        """The transcript's line that answers ``question``, if there is one."""
        return self.transcript.find("exchange", self._key(question))

    def ask(self, question: Question, read: Callable[[str], Value]) -> tuple[Record, Value]:
        """The line of the accepted answer, and what ``read`` makes of it.

        Raises:
            InputError: naming the class and the stage.
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
        images = []
        if question.shown and self.sheets:
            images = [self.sheets(question.classname, question.number)]
        messages = [user_message(question.prompt, images)]
        for attempt in range(1, ATTEMPTS + 1):
            self.say(f"{question.where}: asking {self.settings['model']} at {self.endpoint.host}")
            record = self._record(question, attempt, _for_the_record(messages, question, images))
            value, unread = self._attempt(self.endpoint, question, messages, record, read)
            if value is not None:
                return record, value
            again = "; asking again" if attempt < ATTEMPTS else ""
            self.say(f"{question.where}: {record['outcome']}{again}")
            if unread:  # a proper answer in the wrong form: say what is wrong with it
                wrong = f"That answer cannot be used: {record['outcome']}. Please answer as asked."
                messages = [messages[0], {"role": "assistant", "content": unread}]
                messages.append(user_message(wrong))
        raise InputError(
            f"{question.where}: {record['outcome']} (asked {ATTEMPTS} times); the other answers "
            "are kept, so the same command asks only this again, and another --model may answer"
        )

    def _attempt(
        self,
        endpoint: Endpoint,
        question: Question,
        messages: list[Message],
        record: Record,
        read: Callable[[str], Value],
    ) -> tuple[Value | None, str]:
        """Ask once and keep what came in ``record`` and the transcript.

        Returns:
            what ``read`` makes of the answer, None if it cannot be used; an answer in the wrong
            form.
        """
        started, reply, outcome, value, unread = time.monotonic(), Reply(), "accepted", None, ""
        try:
            reply = endpoint.ask(messages, question.schema)
            value = read(reply.text)
        except Unusable as problem:
            outcome, unread = str(problem), reply.text
            reply = reply if reply.text else problem.reply or reply
        except (InputError, NoImages) as error:
            self.transcript.append({**record, "outcome": str(error)})
            if isinstance(error, InputError):
                raise InputError(f"{question.where}: {error}") from None
            raise
        record |= {
            "schema": question.schema is not None and endpoint.schemas,
            "answer": reply.text,
            "answered_by": reply.model,
            "finish": reply.finish,
            "usage": reply.usage,
            "seconds": round(time.monotonic() - started, 2),
            "outcome": outcome,
        }
        self.transcript.append(record)
        return value, unread

    def _record(self, question: Question, attempt: int, messages: list[Message]) -> Record:
        return {
            "record": "exchange",
            "key": self._key(question),
            "class": question.classname,
            "stage": question.stage,
            "number": question.number,
            "attempt": attempt,
            "time": now(),
            "model": self.settings["model"],
            "host": self.settings["host"],
            "messages": messages,
        }

    def _key(self, question: Question) -> str:
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
            entry |= {"pictures": list(question.shown), "sheet": fingerprint(images[0])}
        kept.append(entry)
    return kept


def now() -> str:
    """The time in UTC, as the transcript writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
