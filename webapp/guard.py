"""Who may ask the page's server, and how much: the first thing that every request meets."""

import hashlib
import hmac
import ipaddress
import json
import sys
import traceback
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_AT_ONCE = 100  # requests that are answered or wait
JSON_BYTES = 2 * 2**20  # of a request that is no upload

# The page's own files only, and images that it was sent as data; no other page may frame it.
POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # images of patients do not get into the browser's folder
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
REFUSED = (403, 413, 421, 503)
NO_TOKEN = "the token is missing or wrong; open the address that app.py printed"


class Refused(HTTPException):
    """A request is not answered; the detail is one line for the page."""


class Guard:
    """Lets a request through to ``app`` if it is of this page and not too large.

    The checks come in this order: the Host header, so that no foreign name can stand for this
    computer (DNS rebinding); the origin, so that no other page can ask; the token; then the size,
    while the body is read. Whatever goes wrong is one line of JSON.

    Args:
        token: whoever opens ``/?token=...`` gets it as a cookie.
        hosts: host names that this server may be called by, beside addresses.
        loopback: whether only addresses of this computer itself are allowed.
        upload_bytes: the size of an upload at ``/api/upload``.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        hosts: Collection[str] = ("localhost",),
        loopback: bool = True,
        upload_bytes: int = JSON_BYTES,
    ) -> None:
        self.app, self.hosts, self.loopback = app, hosts, loopback
        self.upload_bytes = upload_bytes
        self._token = token.encode()
        # Cookies are shared by all ports of a host, so that each server needs a name of its own.
        self.cookie = f"ask_{hashlib.sha256(self._token).hexdigest()[:12]}"
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _Sender(send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: "_Sender") -> None:
        self._running += 1
        try:
            if self._running > MOST_AT_ONCE:
                raise Refused(503, "too many requests at once; try again")
            headers = Headers(scope=scope)
            self._check_source(scope, headers)
            if token := self._given_token(scope):
                await self._let_in(token)(scope, receive, send)
                return
            self._check_cookie(headers)
            limit = self.upload_bytes if scope["path"] == "/api/upload" else JSON_BYTES
            await self.app(scope, _limited(receive, headers, limit), send)
        except Refused as error:
            await send.response(error_response(error.status_code, error.detail), scope, receive)
        except Exception as error:
            _report(error, scope)
            await send.response(internal_error(error), scope, receive)
        finally:
            self._running -= 1

    def _check_source(self, scope: Scope, headers: Headers) -> None:
        """Raise Refused for a request to another name, or from another page."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._is_ours(host):
            raise Refused(
                421, "this server is not called by that name; open the address that app.py printed"
            )
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            raise Refused(403, "the request comes from another page")
        # What a page of this computer on another port asks for has no origin if it is an image.
        source = headers.get("sec-fetch-site", "none")
        if source not in ("same-origin", "none") and scope["path"] != "/":
            raise Refused(403, "the request comes from another page")

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback

    def _given_token(self, scope: Scope) -> bytes | None:
        """The token in the address of the page itself; Refused if it is wrong."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return None
        given = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=10).get("token")
        if not given:
            return None
        token = given[0].encode("utf-8", "replace")
        if not hmac.compare_digest(token, self._token):
            raise Refused(403, NO_TOKEN)
        return token

    def _let_in(self, token: bytes) -> Response:
        """Keep the token as a cookie, and go on to the page without it in the address.

        The page itself asks for the next one: a browser would keep a strict cookie from a redirect
        that began at a link in another page.
        """
        response = HTMLResponse(
            '<!DOCTYPE html><html lang="en"><title>Ask a run</title><a href="/">Open the page</a>',
            headers={"Refresh": "0; url=/"},
        )
        response.set_cookie(self.cookie, token.decode(), httponly=True, samesite="strict", path="/")
        return response

    def _check_cookie(self, headers: Headers) -> None:
        given = ""
        try:
            for line in headers.getlist("cookie"):
                if self.cookie in (cookies := SimpleCookie(line)):
                    given = cookies[self.cookie].value
        except CookieError:
            pass
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            raise Refused(403, NO_TOKEN)


class _Sender:
    """Sends with the headers that every answer has; knows whether one has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            MutableHeaders(scope=message).update(HEADERS)
        await self._send(message)

    async def response(self, response: Response, scope: Scope, receive: Receive) -> None:
        """A whole response, unless one has begun already."""
        if not self.begun:
            await response(scope, receive, self)


def error_response(status: int, text: str) -> Response:
    """``{"error": "one line"}``."""
    body = json.dumps({"error": " ".join(text.split())})
    headers = {"Connection": "close"} if status in REFUSED else None  # the rest is not read
    return Response(body, status, headers, media_type="application/json")


def internal_error(error: Exception) -> Response:
    """What the page is told of a bug: its kind, but not its message."""
    return error_response(500, f"internal error ({type(error).__name__})")


def _limited(receive: Receive, headers: Headers, limit: int) -> Receive:
    """``receive`` that stops a body of more than ``limit`` bytes, announced or not."""
    told = headers.get("content-length", "0")
    too_large = Refused(413, f"the request is larger than {limit / 2**20:.0f} MB")
    if not told.isdecimal() or int(told[:20]) > limit:
        raise too_large
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise too_large
        return message

    return counted


def _report(error: Exception, scope: Scope) -> None:
    """A bug in one line: where, but not what, which may hold the name of a patient."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    print(
        f"error: {type(error).__name__} in {Path(where.filename).name}:{where.lineno}, asked for "
        f"{scope['path']!r:.80}",
        file=sys.stderr,
    )
