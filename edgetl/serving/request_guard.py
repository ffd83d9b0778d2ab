"""What stands in front of every request: who may send it, how it is counted, protective headers."""

from __future__ import annotations

import ipaddress
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgetl.serving.json_line import JsonLine
from edgetl.serving.page_files import PAGE_HEADERS, page_routes
from edgetl.serving.service_metrics import ServiceMetrics

# Answered without the token: the page, which asks for it, and whether the service lives.
_OPEN = frozenset(route.path for route in page_routes("classify")) | {
    *("/healthz", "/openapi.json", "/v2/health/live", "/v2/health/ready")
}


class RequestGuard:
    """Lets those requests through to ``app`` that may be answered, and counts all of them.

    token      what they must carry; None: nothing
    only_here  without a token, they must be addressed to this machine. Any other name in their
               address may be one that a page in the browser of this machine has led here, to read
               what the page must not.
    """

    def __init__(
        self, app: ASGIApp, metrics: ServiceMetrics, token: str | None, only_here: bool
    ) -> None:
        self._app, self._metrics = app, metrics
        self._token = None if token is None else f"Bearer {token}".encode()
        self._only_here = only_here and token is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the start and the end; there are no web sockets
            await self._app(scope, receive, send)
            return
        status, start = 499, time.perf_counter()  # if nothing is sent, the client has gone

        async def send_protected(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(PAGE_HEADERS)
            await send(message)

        scope.setdefault("state", {})
        refusal = self._refusal(scope)
        try:
            if refusal is None:
                await self._app(scope, receive, send_protected)
            else:
                scope["state"]["error_kind"] = "refused"
                await refusal(scope, receive, send_protected)
        finally:
            endpoint = getattr(scope.get("endpoint"), "__name__", "none")
            self._metrics.requests.labels(endpoint, status).inc()
            self._metrics.request_seconds.labels(endpoint).observe(time.perf_counter() - start)
            kind = "disconnected" if status == 499 else scope["state"].get("error_kind")
            if kind is not None:
                self._metrics.errors.labels(kind).inc()

    def _refusal(self, scope: Scope) -> JsonLine | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._only_here and not _is_here(host):
            message = (
                "Address this service by localhost or an IP address, or start it with --token-file."
            )
            return JsonLine({"error": message}, 403)
        if origin is not None and origin.partition("://")[2] != host:
            return JsonLine({"error": "Pages of another site may not use this service."}, 403)
        if self._token is None or scope["path"] in _OPEN:
            return None
        if secrets.compare_digest(headers.get("authorization", "").encode(), self._token):
            return None
        message = "This service needs the token: send Authorization: Bearer TOKEN."
        return JsonLine({"error": message}, 401, {"WWW-Authenticate": "Bearer"})


def _is_here(host: str) -> bool:
    """Whether a Host header is localhost or an IP address, which no other site can have."""
    name = ""
    try:
        address = urlsplit(f"//{host}")
        if address.netloc != host:  # a path follows, say
            return False
        name = address.hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True
