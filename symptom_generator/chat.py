"""Ask a language model at any endpoint that speaks OpenAI's chat completions protocol."""

import base64
import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import openai

from core.errors import InputError
from symptom_generator.address import Address

REFUSAL = re.compile(
    r"^\W*(?:i['\u2019]?m (?:very |really )?sorry|sorry|i am (?:sorry|unable|not able)"
    r"|i (?:can['\u2019]?t|cannot|can not)|i['\u2019]?m (?:unable|not able)"
    r"|unfortunately,? i (?:can|am)|as an ai)",
    re.IGNORECASE,
)
# A request refused with one of these may be accepted when it asks for less.
ASKS_TOO_MUCH = (400, 404, 415, 422, 501)
NOT_A_COMPLETION = "the endpoint's answer is not a chat completion"

Message = dict[str, Any]  # in the protocol's form


class Unusable(Exception):
    """An answer cannot be used; the message says why. It is worth asking again.

    ``reply`` is what came, where the endpoint itself could not answer properly.
    """

    def __init__(self, why: str, reply: "Reply | None" = None) -> None:
        super().__init__(why)
        self.reply = reply


class Broken(Unusable):
    """What came is no answer of the model: the connection or the endpoint is at fault."""


class TooSlow(InputError):
    """The endpoint did not answer in time; it may answer later."""


class NoImages(Exception):
    """The endpoint does not accept images; the message is its own."""


@dataclass
class Reply:
    """One answer: its text, the model that says it wrote it, why it stopped, what it cost."""

    text: str = ""
    model: str = ""
    finish: str = ""
    usage: dict[str, Any] = field(default_factory=dict)

    def add(self, answer: Any, part: str) -> None:
        """Take in a whole completion (``part`` "message") or a streamed piece of one ("delta").

        Raises:
            AttributeError, TypeError: it is neither.
        """
        self.model = _text(getattr(answer, "model", "")) or self.model
        if usage := getattr(answer, "usage", None):
            counts = {"prompt": "prompt_tokens", "completion": "completion_tokens"}
            self.usage = {name: getattr(usage, key, None) for name, key in counts.items()}
        for choice in getattr(answer, "choices", None) or []:
            said = getattr(choice, part)
            self.text += _text(getattr(said, "content", None))
            if getattr(said, "refusal", None):
                self.text, self.finish = "", "refusal"
            self.finish = self.finish or _text(choice.finish_reason)


class Endpoint:
    """A chat endpoint, and which parts of the protocol it turned out not to understand.

    Redirects are not followed, so images reach the host that was named or none.

    Args:
        model: the model's name, as the endpoint knows it.
        temperature: None leaves the endpoint's own.
        retries: how often the package tries again after 429, 5xx, a timeout or a cut connection.
        timeout: seconds without a byte before a request counts as lost.
        stream: False for an endpoint that cannot send an answer piece by piece.
        url: its address; that in OPENAI_BASE_URL if empty.
        max_requests: how many requests it may send at most, those of retries included.
    """

    def __init__(
        self,
        model: str,
        temperature: float | None = None,
        retries: int = 5,
        timeout: float = 120.0,
        stream: bool = True,
        url: str = "",
        max_requests: int | None = None,
    ) -> None:
        self.model, self.temperature = model, temperature
        self.retries, self.timeout, self.stream = retries, timeout, stream
        self.max_requests, self.requests = max_requests, 0
        self.schemas = True
        self.address = Address.from_environment(url)
        self.host, self.redact = self.address.host, self.address.redact
        self._client: openai.OpenAI | None = None

    def say(self, text: str) -> None:
        """Tell the user about progress, on stderr."""
        print(self.redact(text), file=sys.stderr, flush=True)

    def ask(self, messages: list[Message], schema: dict | None = None) -> Reply:
        """Send ``messages`` and return the ``Reply``.

        Args:
            schema: a JSON schema that the answer should follow. If the endpoint refuses the
                request with it, no later request has one; so the prompt has to describe the form.

        Raises:
            Unusable: the answer is empty, refused, cut off or broken.
            NoImages: the endpoint does not accept images.
            InputError: it cannot be reached, or refuses the request for good.
        """
        self.address.check_key()
        try:
            with _retries_shown(self):
                return self._ask(messages, schema)
        except openai.APIStatusError as error:
            raise self._refused(error, messages) from None
        except openai.APITimeoutError:
            raise TooSlow(
                f"{self.host} did not answer within {self.timeout:g} s, {self.retries} retries; "
                "raise --timeout, or run the same command later: it continues from here"
            ) from None
        except openai.APIConnectionError as error:
            cause = _one_line(self.redact(str(error.__cause__ or error)))
            raise InputError(
                f"cannot reach {self.host} ({cause}); check {self.address.named_by}, or run the "
                "same command later: it continues from here"
            ) from None

    def _ask(self, messages: list[Message], schema: dict | None) -> Reply:
        """Ask with the schema, or without it where the endpoint does not know schemas."""
        if schema is None or not self.schemas:
            return self._complete(messages, None)
        try:
            return self._complete(messages, schema)
        except openai.APIStatusError as error:
            if error.status_code not in ASKS_TOO_MUCH:
                raise
            # Raises if the refusal is about something other than the schema.
            reply = self._complete(messages, None)
            self.schemas = False
            reason = self._reason(error)
            self.say(
                f"{self.host} accepts no JSON schema ({reason}); asking for JSON in the prompt"
            )
            return reply

    def _create(self, request: dict[str, Any]) -> Any:
        if self._client is None:
            if self.address.unencrypted:
                self.say(
                    f"{self.host} is asked over plain http: others on the network can read the key "
                    "and the images"
                )
            self._client = openai.OpenAI(
                api_key=self.address.key or "none",  # servers without keys ignore it
                base_url=self.address.url,
                max_retries=self.retries,
                timeout=self.timeout,
                http_client=openai.DefaultHttpxClient(
                    follow_redirects=False,
                    timeout=self.timeout,
                    event_hooks={"request": [self._count]},
                ),
            )
        client = self._client
        if self.max_requests is not None:
            left = self.max_requests - self.requests
            if left < 1:
                raise InputError(
                    f"--max-requests {self.max_requests} is reached; the answers so far are kept: "
                    "the same command continues from here, with as many requests again"
                )
            client = client.with_options(max_retries=min(self.retries, left - 1))
        return client.chat.completions.create(**request)

    def _count(self, request: Any) -> None:
        self.requests += 1

    def _complete(self, messages: list[Message], schema: dict | None) -> Reply:
        request: dict[str, Any] = {"model": self.model, "messages": messages}
        if self.temperature is not None:
            request["temperature"] = self.temperature
        if schema is not None:
            request["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            }
        return self._streamed(request) if self.stream else self._whole(request)

    def _streamed(self, request: dict[str, Any]) -> Reply:
        try:
            chunks = self._create({**request, "stream": True})
        except openai.APIStatusError as error:
            if error.status_code in ASKS_TOO_MUCH and "stream" in self._reason(error).lower():
                return self._without_stream(request)
            raise
        reply, started = Reply(), False
        try:
            for chunk in chunks:
                started = started or chunk is not None
                reply.add(chunk, "delta")
        except (AttributeError, TypeError):
            raise Broken(NOT_A_COMPLETION, self._redacted(reply)) from None
        except Exception as error:
            # The package's retries end where an answer begins, so this one is asked again by us.
            # Its older versions let the errors of the HTTP library through.
            from_http = type(error).__module__.startswith("httpx")
            if not from_http and not isinstance(error, openai.APIError | ValueError):
                raise
            what = "the answer broke off" if started else "no answer came"
            raise Broken(f"{what} ({self._reason(error)})", self._redacted(reply)) from None
        return self._checked(reply) if started else self._without_stream(request)

    def _without_stream(self, request: dict[str, Any]) -> Reply:
        reply = self._whole(request)
        self.stream = False
        self.say(f"{self.host} does not stream; asking for whole answers")
        return reply

    def _whole(self, request: dict[str, Any]) -> Reply:
        reply = Reply()
        try:
            answer = self._create(request)
            answer.choices[0]  # an answer without one is none
            reply.add(answer, "message")
        except InputError:  # no more requests are allowed
            raise
        except (
            openai.APIResponseValidationError,
            ValueError,
            AttributeError,
            TypeError,
            LookupError,
        ):
            raise Broken(NOT_A_COMPLETION) from None
        return self._checked(reply)

    def _checked(self, reply: Reply) -> Reply:
        # Reasoning models of local servers write their reasoning in front of their answer.
        reply.text = re.sub(r"(?s)^.*</think>", "", reply.text).strip()
        reply = self._redacted(reply)
        if why := self._fault(reply):
            raise (Unusable if reply.text or reply.finish else Broken)(why, reply)
        if not reply.finish and self.stream:
            raise Broken("the answer broke off (the connection ended early)", reply)
        return reply

    def _redacted(self, reply: Reply) -> Reply:
        """``reply`` fit to be kept: all of it comes from the endpoint."""
        text, model, finish = map(self.redact, (reply.text, reply.model, reply.finish))
        return Reply(text, model, finish, reply.usage)

    def _fault(self, reply: Reply) -> str | None:
        if reply.finish in ("refusal", "content_filter"):
            return "the model refuses to answer"
        if not reply.text:
            return "the answer is empty"
        if len(reply.text) < 500 and REFUSAL.match(reply.text):
            return f"the model refuses to answer ({_one_line(reply.text, 80)})"
        if reply.finish == "length":
            return "the answer is cut off at the endpoint's length limit"
        return None

    def _refused(self, error: openai.APIStatusError, messages: list[Message]) -> Exception:
        """The exception for an HTTP status that is final."""
        code, reason = error.status_code, self._reason(error)
        answer = f"{self.host} answers {code}: {reason}"
        if "content_filter" in str(error.body) or "content_policy" in str(error.body):
            return Unusable(f"the endpoint's filter refuses the request ({reason})")
        about_images = r"image|vision|multi-?modal|mmproj|content.*string"
        if _has_images(messages) and code in (*ASKS_TOO_MUCH, 500):
            if re.search(about_images, reason, re.IGNORECASE):
                return NoImages(answer)
        if code in (401, 403):
            return InputError(f"{answer}; check OPENAI_API_KEY")
        if code == 404:
            return InputError(f"{answer}; check --model {self.model!r} and {self.address.named_by}")
        if code == 429 or code >= 500:
            return InputError(
                f"{answer} (after {self.retries} retries); run the same command later: "
                "it continues from here"
            )
        if 300 <= code < 400:
            with contextlib.suppress(ValueError):  # an address that is none
                target = urlsplit(error.response.headers.get("location", "")).hostname
                return InputError(
                    f"{self.host} redirects to {target or 'elsewhere'}; redirects are not "
                    f"followed: set {self.address.named_by} to the address you mean"
                )
        return InputError(answer)

    def _reason(self, error: Exception) -> str:
        body = getattr(error, "body", None)
        if isinstance(body, dict):
            body = body.get("error", body)
            body = body.get("message") if isinstance(body, dict) else body
        # In this order: a key that the shortening cuts in two would not be found.
        return _one_line(self.redact(str(body or error)))


class _RetriesShown(logging.Handler):
    """Show the package's own note that it waits and tries again; drop the rest."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(logging.INFO)
        self.endpoint = endpoint

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Retrying request"):
            seconds = re.search(r"in ([\d.]+) seconds", text)
            wait = f" in {float(seconds[1]):.1f} s" if seconds else ""
            count = re.search(r"retry \d+ of \d+", text)
            self.endpoint.say(
                f"  {self.endpoint.host} is busy or silent; trying again{wait}"
                + (f" ({count[0]})" if count else "")
            )


@contextlib.contextmanager
def _retries_shown(endpoint: Endpoint) -> Iterator[None]:
    logger, handler = logging.getLogger("openai"), _RetriesShown(endpoint)
    level = logger.level
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def user_message(text: str, images: Sequence[bytes] = ()) -> Message:
    """One message of the user: text, then JPEG images."""
    if not images:
        return {"role": "user", "content": text}
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for image in images:
        url = "data:image/jpeg;base64," + base64.b64encode(image).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return {"role": "user", "content": parts}


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in ``text``, which may have a fence or words around it.

    Raises:
        Unusable: there is none.
    """
    for candidate in (text, *re.findall(r"(?s)```(?:json)?\s*(.*?)```", text)):
        start, end = candidate.find("{"), candidate.rfind("}")
        try:
            value = json.loads(candidate[start : end + 1])
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be kept
            return value
        except (ValueError, RecursionError):
            continue
    raise Unusable("the answer is not the JSON that was asked for")


def _has_images(messages: list[Message]) -> bool:
    return any(not isinstance(message["content"], str) for message in messages)


def _text(value: Any) -> str:
    """A text of the protocol: None, a text, or a list of parts that have one."""
    if isinstance(value, list):
        return "".join(_text(part["text"]) for part in value if "text" in part)
    if not isinstance(value, str | None):
        raise TypeError(f"{type(value).__name__} in place of a text")
    return value or ""


def _one_line(text: str, length: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3]}..."
