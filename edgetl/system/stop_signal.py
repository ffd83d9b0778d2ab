"""Ctrl-C, a polite kill and a closed terminal end a run after the step it is in, so that its state can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
_SIGNALS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)


class StopSignal:
    """Within ``with``, the first such signal only sets ``received``; a second one does what it always does.

    A terminal's end that is ignored stays so: whoever begins a run with nohup wants it to go on.

    told  called with the first one: what it brings about may take a while
    """

    def __init__(self, told: Callable[[], object] = lambda: None) -> None:
        self.received = False
        self._told = told
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            caught = [
                number
                for number in _SIGNALS
                if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN
            ]
            self._before = {number: signal.signal(number, self._handle) for number in caught}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if number != HANGUP:  # a terminal's end comes twice, from the shell and from the system
            self._restore()
        with suppress(
            Exception
        ):  # whoever watched may be gone; what counts is that the state is saved
            self._told()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(
                number, signal.SIG_DFL if handler is None else handler
            )  # None: it was not Python's
        self._before = {}
