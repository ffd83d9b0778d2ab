"""Receiving what a client sends: no more than is allowed, and not for longer."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from edgetl.serving.request_errors import RequestError, busy

# Bodies held at the same time, in multiples of the largest one: slow clients can't fill the memory.
_BUDGET = 8
_CLOSE = {"Connection": "close"}  # what is still coming is not read


class RequestBodies:
    """The bodies of the requests that are being received and answered.

    max_body  bytes of one
    timeout   seconds for receiving one
    """

    def __init__(self, max_body: int, timeout: float) -> None:
        self._max_body, self._timeout = max_body, timeout
        self._held = 0  # bytes

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The body of ``request``; it counts as held inside the context.

        Raises RequestError if it is too long, too slow, or more than can be held at present;
        ClientDisconnect.
        """
        if int(request.headers.get("content-length", 0)) > self._max_body:
            raise self._too_long()
        held = 0
        try:
            chunks: list[bytes] = []
            try:
                async with asyncio.timeout(self._timeout):
                    async for chunk in request.stream():
                        chunks.append(chunk)
                        held += len(chunk)
                        self._hold(len(chunk), held)
            except TimeoutError as error:
                message = f"The request was not complete after {self._timeout:g} seconds."
                raise RequestError(408, "slow", message, _CLOSE) from error
            body = b"".join(chunks)
            chunks.clear()
            encoding = request.headers.get("content-encoding", "identity")
            if encoding != "identity":
                body = await asyncio.to_thread(self._decompressed, body, encoding)
                held += len(body)
                self._hold(len(body), len(body))
            yield body
        finally:
            self._held -= held

    def _hold(self, chunk: int, total: int) -> None:
        self._held += chunk
        if total > self._max_body:
            raise self._too_long()
        if self._held > _BUDGET * self._max_body:
            raise busy("Too many large requests are being received.")

    def _decompressed(self, body: bytes, encoding: str) -> bytes:
        if encoding not in ("gzip", "deflate"):
            message = f"The content encoding {encoding!r} is not read here: send gzip, or none."
            raise RequestError(415, "unsupported", message)
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # reads the headers of both
        try:
            content = decoder.decompress(body, self._max_body + 1)
        except zlib.error as error:
            raise RequestError(400, "request", f"The body is not {encoding}: {error}.") from error
        if len(content) > self._max_body:
            raise self._too_long()
        if not decoder.eof:
            raise RequestError(400, "request", f"The {encoding} of the body is cut off.")
        return content

    def _too_long(self) -> RequestError:
        limit = f"{self._max_body / (1 << 20):g} MiB"
        return RequestError(413, "too large", f"A request may have at most {limit}.", _CLOSE)
