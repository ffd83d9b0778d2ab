"""A connection of a client, closed when it is idle for long, sends an endless head, or has to go.

It stays HTTP/1.1 where a client asks for another protocol.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_IDLE = 75  # seconds, longer than most proxies keep a connection that they may use again
_LONGEST_HEAD = 1 << 16  # bytes
_OTHER_FILES = 100  # that a process has open besides connections


class TimedConnection(HttpToolsProtocol):
    """Closes itself after ``_IDLE`` seconds in which no request began, or its head did not end, or
    nothing was read of an answer; and when a head is longer than ``_LONGEST_HEAD``.

    Where there are nearly as many as the process may open files, a new one closes the one that has
    been idle for longest: else a thousand that send nothing would keep all others out.
    uvicorn's own limit, of five seconds, begins with the first response, and it takes heads of any
    length. The time and length of a request's body are limited where it is read.
    """

    _unused = 0  # bytes that came since the last end of a head or piece of a body
    _is_used = False  # whether there was one in the bytes that are being parsed
    _parsed = b""  # these bytes
    _unparsed = b""  # and what is to be parsed after them
    _last_data = 0.0  # when they came, of the event loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive = _IDLE
        self._last_data = self.loop.time()
        self._check_later(None, 0)
        if len(self.connections) > _most_connections():
            others: Any = self.connections - {self}
            idle = [one for one in others if one._is_idle and not one.transport.is_closing()]
            if idle:
                min(idle, key=lambda one: one._last_data).transport.abort()

    def data_received(self, data: bytes) -> None:
        self._is_used, self._unparsed, self._last_data = False, data, self.loop.time()
        while self._unparsed:
            self._parsed, self._unparsed = self._unparsed, b""
            super().data_received(self._parsed)
        self._parsed = b""
        self._unused = 0 if self._is_used else self._unused + len(data)
        if self._unused > _LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        self._is_used = True
        if not self._asks_for_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._asks_for_upgrade():
            super().on_message_complete()

    def _asks_for_upgrade(self) -> bool:
        """CONNECT is an upgrade, too, without a header to leave out: it is answered as it is."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _unsupported_upgrade_warning(self) -> None:
        """Have the request parsed again without its Upgrade, which a server may ignore.

        Java's HttpClient asks for HTTP/2 in this way, and sends a body along. httptools takes what
        follows such a head for the other protocol.
        """
        if not self._asks_for_upgrade():
            return
        error = sys.exc_info()[1]
        assert error is not None
        rest, method = self._parsed[error.args[0] :], self.parser.get_method()
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self._unparsed = b"\r\n".join([*lines, b"", rest])

    def on_body(self, body: bytes) -> None:
        self._is_used = True
        super().on_body(body)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _check_later(self, seen: Any, unread: int) -> None:
        self.loop.call_later(_IDLE, self._check, seen, unread)

    def _check(self, seen: Any, unread: int) -> None:
        """``seen`` is the request that was the last one at the check before this one, ``unread``
        what was left then of the answers' bytes."""
        if self not in self.connections:  # it is closed
            return
        left = self.transport.get_write_buffer_size()
        if left and left == unread:
            self.transport.abort()
        elif self._is_idle and self.cycle is seen and not left:
            self.transport.close()
        else:
            self._check_later(self.cycle, left)


def _most_connections() -> int:
    """As many as leave room for other files, by the process's limit at present."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(limit - _OTHER_FILES, limit // 2)
