"""A web server for one person at this machine: loopback only, behind a secret address."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgetl.serving.listening_socket import listen
from edgetl.serving.page_files import PAGE_HEADERS
from edgetl.system.loopback_guard import LOOPBACK, LoopbackGuard, new_token


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
                MutableHeaders(scope=message).update(PAGE_HEADERS)
            await send(message)

        if scope["type"] != "http":  # nothing answers a web socket
            return
        headers = Headers(scope=scope)
        refused = self._guard.refusal(
            scope["method"], scope["path"], headers.get("host", ""), headers.get("origin")
        )
        if refused is None:
            await self._app({**scope, "root_path": self._guard.root}, receive, send_protected)
        else:
            status, why = refused
            await PlainTextResponse(why, status)(scope, receive, send_protected)


def serve(app: ASGIApp, port: int, on_start: Callable[[str], object]) -> None:
    """Answer requests from this machine until Ctrl-C or SIGTERM.

    port      0: a free one
    on_start  called with the address of the page once it can be opened

    Raises EdgetlError if the port is taken.
    """
    with listen(LOOPBACK, port) as listener:
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
