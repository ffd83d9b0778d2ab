"""A line that says how far things are, on stderr, and only where someone sits before it.

Written out here because a progress bar's package is larger than all else that a device needs of edgetl.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_DRAW_SECONDS = 0.1


def _watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def counting(*, done: int, total: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Yields what to call after each photo.

    done   how many were there before
    total  counts them all; asked only if the line is shown
    """
    if not _watched():
        yield lambda: None
        return
    line = _Line(done, total())
    try:
        yield line.advance
    finally:
        line.draw()
        sys.stderr.write("\n")


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None]]:
    """Yields what to call with the step being done, how much of it is done and of how much (0 of 0: not counted).

    The line is gone at the end.
    """
    if not _watched():
        yield lambda what, done, total: None
        return
    line = _Steps()
    try:
        yield line.show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


class _Steps:
    def __init__(self) -> None:
        self._what = ""
        self._start = self._drawn = time.monotonic()

    def show(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what == self._what and now - self._drawn < _DRAW_SECONDS:
            return
        self._what, self._drawn = what, now
        count = f"  {done:,}/{total:,}" if total else " …"
        sys.stderr.write(f"\r{what}{count}  {clock(now - self._start)}\x1b[K")
        sys.stderr.flush()


class _Line:
    def __init__(self, done: int, total: int) -> None:
        self._before, self._done, self._total = done, done, max(total, done)
        self._start = self._drawn = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        if time.monotonic() - self._drawn >= _DRAW_SECONDS:
            self.draw()

    def draw(self) -> None:
        self._drawn = time.monotonic()
        rate = (self._done - self._before) / max(self._drawn - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else 0
        text = f"{self._done:,}/{self._total:,} photos  {rate:,.0f} photos/s  {clock(left)} left"
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """1:05 or 2:00:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
