"""The time that a run has taken, and how much of it is left."""

from __future__ import annotations

import math
import time

FINAL_SHARE = 0.05
"""Of a time limit, kept for the photos that are looked at after the last epoch."""


class TimeBudget:
    """Seconds since the start of a run, and until its time limit.

    started   ``time.monotonic()`` when the run began; for a resumed one, less the seconds before
    max_time  minutes; 0: no limit
    """

    def __init__(self, started: float, max_time: float) -> None:
        self._started = started
        self._end = started + 60 * max_time if max_time else math.inf

    @property
    def is_limited(self) -> bool:
        """Whether the run has a time limit."""
        return math.isfinite(self._end)

    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def seconds_left(self) -> float:
        """Until the time limit, at least 0; infinite without one."""
        return max(self._end - time.monotonic(), 0.0)

    def is_up(self) -> bool:
        """Whether no time is left."""
        return self.seconds_left() == 0

    def share_since(self, seconds: float) -> float:
        """The share, 0..1, that has passed of the time from ``seconds`` to the limit."""
        passed = self.seconds() - seconds
        return passed / max(passed + self.seconds_left(), 1e-9)


class Timer:
    """Tells when ``interval`` seconds have passed since the last ``restart``."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._since = time.monotonic()

    def is_due(self) -> bool:
        """Whether the interval is over."""
        return time.monotonic() - self._since >= self._interval
