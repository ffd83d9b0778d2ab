"""A connection of a client, closed when it stays idle."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_IDLE = 30.0  # seconds


class TimedConnection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes itself after ``_IDLE`` seconds in which no request began, or its head did not end.

    uvicorn's own limit begins with the first response. The time for the body of a request is
    limited where it is read.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._check_later(None)

    def _check_later(self, seen: Any) -> None:
        self.loop.call_later(_IDLE, self._check, seen)

    def _check(self, seen: Any) -> None:
        """``seen`` is the request that was the last one at the check before this one."""
        if self.transport.is_closing():
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is seen:
            self.transport.close()
        else:
            self._check_later(self.cycle)
