"""Ask a language model at any endpoint that speaks OpenAI's chat completions protocol."""

import base64
import contextlib
import ipaddress
import logging
import os
import re
import sys
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from core.errors import InputError

DEFAULT_BASE_URL = "https://api.openai.com/v1"
REFUSAL = re.compile(
    r"^\W*(?:i['\u2019]?m (?:very |really )?sorry|sorry|i am (?:sorry|unable|not able)"
    r"|i (?:can['\u2019]?t|cannot|can not)|i['\u2019]?m (?:unable|not able)"
    r"|unfortunately,? i (?:can|am)|as an ai)",
    re.IGNORECASE,
)
# A request refused with one of these may go through when it asks for less.
ASKS_TOO_MUCH = (400, 404, 415, 422, 501)


class Unusable(Exception):
    """An answer cannot be used; the message says why. It is worth asking again.

    ``reply`` is what came, where the endpoint itself could not answer properly.
    """

    def __init__(self, why, reply=None):
        super().__init__(why)
        self.reply = reply


class NoPictures(Exception):
    """The endpoint does not take pictures; the message is its own."""


@dataclass
class Reply:
    """One answer: its text, the model that says it wrote it, why it stopped, what it cost."""

    text: str
    model: str = ""
    finish: str = ""
    usage: dict = field(default_factory=dict)


class Endpoint:
    """A chat endpoint, with what it turned out not to understand.

    The address and the key come from ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``. The key goes to
    the endpoint and nowhere else: ``redact`` takes it out of every text that is shown or kept.
    Redirects are not followed, so pictures reach the host that was named or none.

    Args:
        model: the model's name, as the endpoint knows it.
        temperature: None leaves the endpoint's own.
        retries: how often the package tries again after 429, 5xx, a timeout or a cut connection.
        timeout: seconds without a byte before a request counts as lost.
        stream: False for an endpoint that cannot send an answer piece by piece.
    """

    def __init__(self, model, temperature=None, retries=5, timeout=120.0, stream=True):
        self.model, self.temperature = model, temperature
        self.retries, self.timeout, self.stream = retries, timeout, stream
        self.schemas = True
        self.base_url = os.environ.get("OPENAI_BASE_URL", "").strip() or DEFAULT_BASE_URL
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                "OPENAI_BASE_URL is no http(s) address, as in http://127.0.0.1:8000/v1"
            )
        self.host = parts.hostname + (f":{parts.port}" if parts.port else "")
        self._open = parts.scheme == "http" and not _is_loopback(parts.hostname)
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        # Shorter ones are placeholders, everyday words that an answer may well hold.
        self._secrets = [s for s in (self._key, parts.password, parts.query) if len(s or "") >= 8]
        self._client = None

    def redact(self, text):
        """``text`` without the key or a password of the address."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text

    def say(self, text):
        """Tell the user about progress, on stderr."""
        print(self.redact(text), file=sys.stderr, flush=True)

    def ask(self, messages, schema=None):
        """Send ``messages`` and return the ``Reply``.

        Args:
            messages: in the protocol's form.
            schema: a JSON schema the answer is to follow. An endpoint that refuses the request
                with it is asked without, once and for all; the prompt has to name the form too.

        Raises:
            Unusable: the answer is empty, refused, cut off or broken.
            NoPictures: the endpoint takes no pictures.
            InputError: it cannot be reached, or refuses the request for good.
        """
        client = self._connect()
        import openai

        try:
            with _retries_shown(self):
                return self._ask(client, messages, schema)
        except openai.APIStatusError as error:
            raise self._refused(error, messages) from None
        except openai.APITimeoutError:
            raise InputError(
                f"{self.host} did not answer within {self.timeout:g} s, {self.retries} retries; "
                "raise --timeout, or run the same command later: it goes on from here"
            ) from None
        except openai.APIConnectionError as error:
            cause = _one_line(self.redact(str(error.__cause__ or error)))
            raise InputError(
                f"cannot reach {self.host} ({cause}); check OPENAI_BASE_URL, or run the same "
                "command later: it goes on from here"
            ) from None

    def _ask(self, client, messages, schema):
        """Ask with the schema, or without it where the endpoint does not know schemas."""
        import openai

        if schema is None or not self.schemas:
            return self._complete(client, messages, None)
        try:
            return self._complete(client, messages, schema)
        except openai.APIStatusError as error:
            if error.status_code not in ASKS_TOO_MUCH:
                raise
            # Raises if the refusal is about something other than the schema.
            reply = self._complete(client, messages, None)
            self.schemas = False
            reason = self._reason(error)
            self.say(f"{self.host} takes no JSON schema ({reason}); asking for JSON in the text")
            return reply

    def _connect(self):
        if self._client is None:
            try:
                import openai
            except ModuleNotFoundError:
                raise InputError("the openai package is missing; pip install openai") from None
            if not self._key and self.base_url == DEFAULT_BASE_URL:
                raise InputError(
                    "OPENAI_API_KEY is not set; set it, or OPENAI_BASE_URL for a server of your own"
                )
            # Said without the key itself: http libraries put a bad header into their error.
            if not re.fullmatch(r"[\x21-\x7e]*", self._key):
                raise InputError("OPENAI_API_KEY holds a space or a character that no key has")
            if self._open:
                self.say(
                    f"{self.host} is asked over plain http: who listens reads key and pictures"
                )
            self._client = openai.OpenAI(
                api_key=self._key or "none",  # servers without keys ignore it
                base_url=self.base_url,
                max_retries=self.retries,
                timeout=self.timeout,
                http_client=openai.DefaultHttpxClient(follow_redirects=False, timeout=self.timeout),
            )
        return self._client

    def _complete(self, client, messages, schema):
        import openai

        request = {"model": self.model, "messages": messages}
        if self.temperature is not None:
            request["temperature"] = self.temperature
        if schema is not None:
            request["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "matches", "strict": True, "schema": schema},
            }
        if not self.stream:
            return self._whole(client, request)
        try:
            chunks = client.chat.completions.create(**request, stream=True)
        except openai.APIStatusError as error:
            if error.status_code in ASKS_TOO_MUCH and "stream" in self._reason(error).lower():
                return self._without_stream(client, request)
            raise
        reply, started = Reply(""), False
        try:
            for chunk in chunks:
                started = True
                reply.model = chunk.model or reply.model
                if chunk.usage:
                    reply.usage = _usage(chunk.usage)
                for choice in chunk.choices or []:
                    reply.text += getattr(choice.delta, "content", None) or ""
                    if getattr(choice.delta, "refusal", None):
                        reply.finish = "refusal"
                    reply.finish = reply.finish or choice.finish_reason or ""
        except Exception as error:
            # The package's retries end where an answer begins, so this one is asked again by us.
            # Its older versions let the errors of the HTTP library through.
            from_http = type(error).__module__.startswith("httpx")
            if not from_http and not isinstance(error, openai.APIError | ValueError):
                raise
            what = "the answer broke off" if started else "no answer came"
            raise Unusable(f"{what} ({self._reason(error)})", self._redacted(reply)) from None
        if not started:
            return self._without_stream(client, request)
        return self._checked(reply)

    def _without_stream(self, client, request):
        reply = self._whole(client, request)
        self.stream = False
        self.say(f"{self.host} does not stream; asking for whole answers")
        return reply

    def _whole(self, client, request):
        import openai

        try:
            answer = client.chat.completions.create(**request)
            message, finish = answer.choices[0].message, answer.choices[0].finish_reason
        except (
            openai.APIResponseValidationError,
            ValueError,
            AttributeError,
            TypeError,
            IndexError,
        ):
            raise Unusable("the endpoint's answer is no chat completion") from None
        refused = getattr(message, "refusal", None)
        usage = _usage(answer.usage) if answer.usage else {}
        reply = Reply(message.content or "", answer.model or "", finish or "", usage)
        return self._checked(Reply("", reply.model, "refusal", usage) if refused else reply)

    def _checked(self, reply):
        # Reasoning models of local servers think aloud in front of their answer.
        reply.text = re.sub(r"(?s)^.*</think>", "", reply.text).strip()
        reply = self._redacted(reply)
        why = self._fault(reply)
        if why:
            raise Unusable(why, reply)
        return reply

    def _redacted(self, reply):
        """``reply`` fit to be kept: all of it comes from the endpoint."""
        text, model, finish = map(self.redact, (reply.text, reply.model, reply.finish))
        return Reply(text, model, finish, reply.usage)

    def _fault(self, reply):
        if reply.finish in ("refusal", "content_filter"):
            return "the model refuses to answer"
        if not reply.text:
            return "the answer is empty"
        if len(reply.text) < 500 and REFUSAL.match(reply.text):
            return f"the model refuses to answer ({_one_line(reply.text, 80)})"
        if reply.finish == "length":
            return "the answer is cut off at the endpoint's length limit"
        if not reply.finish and self.stream:
            return "the answer broke off (the connection ended early)"
        return None

    def _refused(self, error, messages):
        """The exception for an HTTP status that is final."""
        code, reason = error.status_code, self._reason(error)
        answer = f"{self.host} answers {code}: {reason}"
        if "content_filter" in str(error.body) or "content_policy" in str(error.body):
            return Unusable(f"the endpoint's filter refuses the request ({reason})")
        if _has_pictures(messages) and code in (*ASKS_TOO_MUCH, 500):
            if re.search(
                r"image|vision|multi-?modal|mmproj|content.*string", reason, re.IGNORECASE
            ):
                return NoPictures(answer)
        if code in (401, 403):
            return InputError(f"{answer}; check OPENAI_API_KEY")
        if code == 404:
            return InputError(f"{answer}; check --model {self.model!r} and OPENAI_BASE_URL")
        if code == 429 or code >= 500:
            return InputError(
                f"{answer} (after {self.retries} retries); run the same command later: "
                "it goes on from here"
            )
        if 300 <= code < 400:
            target = urlsplit(error.response.headers.get("location", "")).hostname or "elsewhere"
            return InputError(
                f"{self.host} redirects to {target}, which is not followed; set OPENAI_BASE_URL "
                "to the address you mean"
            )
        return InputError(answer)

    def _reason(self, error):
        body = getattr(error, "body", None)
        if isinstance(body, dict):
            body = body.get("error", body)
            body = body.get("message") if isinstance(body, dict) else body
        # In this order: a key that the shortening cuts in two would not be found.
        return _one_line(self.redact(str(body or error)))


class _RetriesShown(logging.Handler):
    """Show the package's own note that it waits and tries again; drop the rest."""

    def __init__(self, endpoint):
        super().__init__(logging.INFO)
        self.endpoint = endpoint

    def emit(self, record):
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
def _retries_shown(endpoint):
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


def user_message(text, pictures=()):
    """One message of the user: text, then JPEG pictures (bytes)."""
    if not pictures:
        return {"role": "user", "content": text}
    parts = [{"type": "text", "text": text}]
    for picture in pictures:
        url = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return {"role": "user", "content": parts}


def _is_loopback(host):
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _has_pictures(messages):
    return any(not isinstance(message["content"], str) for message in messages)


def _usage(usage):
    return {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens}


def _one_line(text, length=200):
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "\u2026"
