"""A web server for one person at this machine: loopback only, behind a secret address."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgetl.errors import EdgetlError
from edgetl.system.loopback_guard import LOOPBACK, PROTECTIVE_HEADERS, LoopbackGuard, new_token

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    **PROTECTIVE_HEADERS,
}


class LoopbackOnly:
    """Lets those requests through to ``app`` that come from its own page on this machine.

    They are answered below ``/TOKEN``.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app = app
        self._guard = LoopbackGuard(port, token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            scope = {**scope, "root_path": self._guard.root}
            await self._app(scope, receive, send_protected)
        elif scope["type"] == "http":
            await refusal(scope, receive, send_protected)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        if scope["type"] != "http":
            return PlainTextResponse("Only HTTP.", 400)
        headers = Headers(scope=scope)
        refused = self._guard.refusal(
            scope["method"], scope["path"], headers.get("host", ""), headers.get("origin")
        )
        return PlainTextResponse(refused[1], refused[0]) if refused else None


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
            listener.bind((LOOPBACK, port))
            listener.listen()
        except OSError as error:
            raise EdgetlError(
                f"Port {port} can't be used: {error.strerror}.", "Choose another one with --port."
            ) from error
        port, token = listener.getsockname()[1], new_token()
        config = uvicorn.Config(
            LoopbackOnly(app, port, token),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        on_start(f"http://{LOOPBACK}:{port}/{token}/")
        with suppress(KeyboardInterrupt):  # uvicorn sends the signal once more when it has ended
            uvicorn.Server(config).run([listener])
