"""A web server for one person at this machine: on the loopback interface, behind a secret address.

Any page in the same browser may send requests to this machine, and any program on it may ask for
its ports. So every request needs the random token in its path, must be addressed to this machine
(or a name that an attacker has led here would count as the page's own origin), and may change
something only if it comes from the page itself.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgetl.errors import EdgetlError

_HOST = "127.0.0.1"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class LoopbackOnly:
    """Lets those requests through to ``app`` that come from its own page on this machine.

    They are answered below ``/TOKEN``, with headers by which the browser protects the page, too.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in (_HOST, "localhost")}
        self._root = f"/{token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            scope = {**scope, "root_path": self._root}
            await self._app(scope, receive, send_protected)
        elif scope["type"] == "http":
            await refusal(scope, receive, send_protected)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        if scope["type"] != "http":
            return PlainTextResponse("Only HTTP.", 400)
        headers, path = Headers(scope=scope), scope["path"].encode()
        host = headers.get("host", "")
        if host not in self._hosts:
            return PlainTextResponse("This server answers only as this machine.", 403)
        root = self._root.encode()
        if not secrets.compare_digest(path[: len(root) + 1], root + b"/"):
            return PlainTextResponse("Not found.", 404)
        if scope["method"] not in ("GET", "HEAD") and headers.get("origin") != f"http://{host}":
            return PlainTextResponse("Only the page itself may do this.", 403)
        return None


def serve(app: ASGIApp, port: int, on_start: Callable[[str], object]) -> None:
    """Answer requests from this machine until Ctrl-C or SIGTERM.

    port      0: a free one
    on_start  called with the address of the page once it can be opened

    Raises EdgetlError if the port is taken.
    """
    with socket.socket() as listener:
        try:
            if os.name == "posix":  # elsewhere it would share the port with another program
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((_HOST, port))
            listener.listen()
        except OSError as error:
            raise EdgetlError(
                f"Port {port} can't be used: {error.strerror}.", "Choose another one with --port."
            ) from error
        port, token = listener.getsockname()[1], secrets.token_urlsafe(24)
        config = uvicorn.Config(
            LoopbackOnly(app, port, token),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        on_start(f"http://{_HOST}:{port}/{token}/")
        with suppress(KeyboardInterrupt):  # uvicorn sends the signal once more when it has ended
            uvicorn.Server(config).run([listener])
