"""A line on stderr that shows progress.

Written by hand, since rich is larger than everything else that a device needs of edgetl.
"""

from __future__ import annotations

import sys
import time

_DRAW_SECONDS = 0.1


class ProgressLine:
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
        _write(text)

    def erase(self) -> None:
        """At the end, and after a failure."""
        _write("")


def clock(seconds: float) -> str:
    """1:05 or 2:00:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _write(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()
