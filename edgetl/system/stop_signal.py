"""Stop a run after its current step on Ctrl-C, SIGTERM or SIGHUP, to save its state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
_SIGNALS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)


class StopSignal:
    """A context in which the first such signal only sets ``received``; a second one acts as usual.

    SIGHUP stays ignored where it is ignored: a run started with nohup is meant to go on.
    """

    def __init__(self, on_signal: Callable[[], object] = lambda: None) -> None:
        """on_signal: called at the first signal, e.g. to say that stopping takes a while."""
        self.received = False
        self._on_signal = on_signal
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            ignored = HANGUP is not None and signal.getsignal(HANGUP) == signal.SIG_IGN
            caught = [number for number in _SIGNALS if not (number == HANGUP and ignored)]
            self._before = {number: signal.signal(number, self._handle) for number in caught}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if number != HANGUP:  # SIGHUP comes twice, from the shell and from the system
            self._restore()
        with suppress(Exception):  # the terminal may be gone; the state must be saved all the same
            self._on_signal()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: the handler was not set from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
