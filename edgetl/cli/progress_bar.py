"""A line on stderr that shows progress, only where stderr is a terminal.

Written by hand, since rich is larger than everything else that a device needs of edgetl.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgetl.system.progress import Progress, no_progress

_DRAW_SECONDS = 0.1


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yield the callback that draws the line, which is erased at the end.

    Where nobody would see the line, it is ``no_progress``.
    """
    if not _is_terminal():
        yield no_progress
        return
    try:
        yield _ProgressLine()
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


class _ProgressLine:
    """Drawn at most ten times a second.

    A step that is counted shows its rate and the time left, others the time since the beginning.
    """

    def __init__(self) -> None:
        self._step, self._first = "", 0
        self._began = self._start = self._drawn = time.monotonic()

    def __call__(self, step: str, done: int, total: int, /) -> None:
        now = time.monotonic()
        if step != self._step:
            self._step, self._first, self._start = step, done, now
        elif now - self._drawn < _DRAW_SECONDS and not 0 < done == total:
            return
        self._drawn = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        text = f"{step}  {done:,}/{total:,}" if total else f"{step} …  {clock(now - self._began)}"
        if rate:
            text += f"  {rate:,.{0 if rate >= 10 else 1}f}/s  {clock((total - done) / rate)} left"
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """1:05 or 2:00:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
