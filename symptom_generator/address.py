"""The address and the key of an endpoint, from the environment; and texts without the key."""

import contextlib
import ipaddress
import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from core.errors import InputError

OPENAI_URL = "https://api.openai.com/v1"
BASE_URL = "OPENAI_BASE_URL"


@dataclass(frozen=True)
class Address:
    """Where an endpoint is, and the key for it.

    The key goes to the endpoint and nowhere else: ``redact`` takes it out of every text that is
    shown or kept.

    Attributes:
        url: the base URL. host: its host, with a port if it names one.
        named_by: the option or variable that the user gave the address in.
        unencrypted: True where others on the network can read what is sent.
    """

    url: str = field(repr=False)
    host: str
    key: str = field(repr=False)
    unencrypted: bool
    secrets: tuple[str, ...] = field(repr=False)
    named_by: str = BASE_URL

    @classmethod
    def from_environment(cls, url: str = "") -> "Address":
        """The address in OPENAI_BASE_URL and the key in OPENAI_API_KEY.

        Args:
            url: the address that the option --base-url names, in place of the variable.

        Raises:
            InputError: the address cannot be right; the line does not show it.
        """
        named_by = "--base-url" if url.strip() else BASE_URL
        url = url.strip() or os.environ.get(BASE_URL, "").strip() or OPENAI_URL
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if re.search(r"\s", url) or not url.isprintable():
            raise InputError(f"{named_by} contains a space, a line break or a control character")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError:  # whose message may show a password
            raise InputError(
                f"{named_by} has an impossible host or port; an example is http://127.0.0.1:8000/v1"
            ) from None
        if parts.scheme not in ("http", "https") or not host:
            raise InputError(
                f"{named_by} is not an http(s) address; an example is http://127.0.0.1:8000/v1"
            )
        # Shorter ones are placeholders, everyday words that an answer may well contain.
        secrets = tuple(s for s in (key, parts.password, parts.query) if s and len(s) >= 8)
        unencrypted = parts.scheme == "http" and not _is_loopback(host)
        host += f":{port}" if port else ""
        return cls(url, host, key, unencrypted, secrets, named_by)

    def check_key(self) -> None:
        """Raise InputError where the key is missing or cannot be right, without showing it."""
        if not self.key and self.url == OPENAI_URL:
            raise InputError(
                "OPENAI_API_KEY is not set; set it, or OPENAI_BASE_URL for a server of your own"
            )
        # HTTP libraries put a bad header, key included, into their error.
        if not re.fullmatch(r"[\x21-\x7e]*", self.key):
            raise InputError(
                "OPENAI_API_KEY contains a space or a character that is not allowed in a key"
            )

    def redact(self, text: str) -> str:
        """``text`` without the key or a password of the address, fit to be written as UTF-8."""
        for secret in self.secrets:
            text = text.replace(secret, "[key]")
        return text.encode("utf-8", "replace").decode()


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
