"""How long-running functions report their progress: one callback, however it is shown."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Called with the name of the step, how many items are done, and of how many.

    0 of 0: the step is not counted.
    """

    def __call__(self, step: str, done: int, total: int, /) -> None: ...


def no_progress(step: str, done: int, total: int, /) -> None:
    """Reports nothing."""


def track(items: Iterable[T], total: int, step: str, progress: Progress) -> Iterator[T]:
    """Iterate over ``total`` items, and report each when the next one is asked for."""
    progress(step, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(step, done, total)


class ProgressCounter:
    """Counts the items of one step; may be called from any thread."""

    def __init__(self, progress: Progress, step: str, total: int) -> None:
        self._progress, self._step, self._total, self._done = progress, step, total, 0
        self._lock = threading.Lock()
        progress(step, 0, total)

    def __call__(self) -> None:
        """One more item is done."""
        with self._lock:
            self._done += 1
            self._progress(self._step, self._done, self._total)
