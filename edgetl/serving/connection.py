"""A connection of a client, closed when it stays idle or sends a head without an end."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_IDLE = 30.0  # seconds
_LONGEST_HEAD = 1 << 16  # bytes


class TimedConnection(HttpToolsProtocol):
    """Closes itself after ``_IDLE`` seconds in which no request began, or its head did not end, or
    nothing was read of an answer; and when a head is longer than ``_LONGEST_HEAD``.

    uvicorn's own limit begins with the first response, and it takes heads of any length. The time
    and length of a request's body are limited where it is read.
    """

    _unused = 0  # bytes that came since the last end of a head or piece of a body
    _is_used = False  # whether there was one in the bytes that are being parsed

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._check_later(None, 0)

    def data_received(self, data: bytes) -> None:
        self._is_used = False
        super().data_received(data)
        self._unused = 0 if self._is_used else self._unused + len(data)
        if self._unused > _LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        self._is_used = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._is_used = True
        super().on_body(body)

    def _check_later(self, seen: Any, unread: int) -> None:
        self.loop.call_later(_IDLE, self._check, seen, unread)

    def _check(self, seen: Any, unread: int) -> None:
        """``seen`` is the request that was the last one at the check before this one, ``unread``
        what was left then of the answers' bytes."""
        if self not in self.connections:  # it is closed
            return
        left = self.transport.get_write_buffer_size()
        is_idle = self.cycle is None or self.cycle.response_complete
        if left and left == unread:
            self.transport.abort()
        elif is_idle and self.cycle is seen and not left:
            self.transport.close()
        else:
            self._check_later(self.cycle, left)
