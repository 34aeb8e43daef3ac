"""From a workbench to a page in a browser: the socket, the address with its token, the end."""

import errno
import html
import ipaddress
import secrets
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from core.errors import InputError

from .guard import Guard
from .server import page_server
from .workbench import Workbench

CONNECTIONS = 200  # at a time
SECONDS = 2  # that requests get to end after Ctrl+C


def listen(host: str, port: int) -> socket.socket:
    """A socket on which a page will be served.

    Raises:
        InputError: the address does not exist here, or the port is in use or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or "127.0.0.1", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise InputError(f"--host {host}: no such address; 127.0.0.1 is this computer") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        reasons = {
            errno.EADDRINUSE: f"port {port} is in use; choose another with --port, or 0 for a free "
            "one",
            errno.EACCES: f"port {port} is not allowed; choose one above 1023 with --port",
            errno.EADDRNOTAVAIL: f"--host {host}: not an address of this computer",
        }
        reason = reasons.get(error.errno or 0, f"--host {host} --port {port}: {error.strerror}")
        raise InputError(reason) from None
    return listener


def config_of(app: Guard) -> uvicorn.Config:
    """How the page is served: bounded, and without a log."""
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",  # no addresses, which hold the token and names of files
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=SECONDS,
    )


def serve(
    workbench: Workbench, listener: socket.socket, blind: bool = False, browser: bool = True
) -> None:
    """Serve the page until Ctrl+C."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    token = secrets.token_urlsafe(32)
    hosts = ["localhost"] if address.is_loopback else ["localhost", socket.gethostname().lower()]
    app = page_server(workbench, token, hosts, address.is_loopback, blind)
    name = "127.0.0.1" if address.is_unspecified else host
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}/?token={token}"
    print(f"Open {url}", flush=True)
    if not address.is_loopback:
        print(
            "warning: other computers can reach this page. Whoever has its address with the token "
            "sees the images and can read what is sent: the connection is not encrypted. "
            f"Safer: leave out --host and use ssh -L {port}:127.0.0.1:{port}",
            file=sys.stderr,
        )
    print("Ctrl+C ends it", file=sys.stderr)
    with _opened(url if browser else None):
        try:
            uvicorn.Server(config_of(app)).run(sockets=[listener])
        except KeyboardInterrupt:
            pass


@contextmanager
def _opened(url: str | None) -> Iterator[None]:
    """Open a browser, by a file that only this user can read.

    Other users of a computer see the arguments of its programs, and so would see the token.
    """
    if url is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="ask-a-run-") as folder:
        page = Path(folder) / "open.html"
        address = html.escape(url, quote=True)
        page.write_text(
            f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={address}">'
            f'<a href="{address}">Open the page</a>',
            encoding="utf-8",
        )
        threading.Thread(target=webbrowser.open, args=[page.as_uri()], daemon=True).start()
        yield
