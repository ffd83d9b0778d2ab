"""How long-running functions report their progress: one callback, however it is shown."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Called with the name of the step, how many items are done, and of how many.

    0 of 0: the step is not counted.
    """

    def __call__(self, step: str, done: int, total: int, /) -> None: ...


def no_progress(step: str, done: int, total: int, /) -> None:
    """Reports nothing."""


def progress_callback(progress: Progress | bool | None) -> Progress:
    """What to call for the argument ``progress`` of a public function.

    True is a bar, by tqdm where it is installed, which draws in notebooks, too.
    """
    if progress is not True:
        return progress or no_progress
    if find_spec("tqdm") is not None:
        return _TqdmBar()
    from edgetl.system.progress_line import ProgressLine

    line = ProgressLine()

    def show(step: str, done: int, total: int, /) -> None:
        line(step, done, total)
        if 0 < total <= done:
            line.erase()  # what is printed next would stand behind it

    return show


class _TqdmBar:
    """A bar for each step, which vanishes when the step is done."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that ipywidgets is missing: then the bar is text
            from tqdm.auto import tqdm
        self._tqdm, self._step = tqdm, ""
        self._bar: Any = None

    def __call__(self, step: str, done: int, total: int, /) -> None:
        if step != self._step:
            self.close()
            shown = None if total else "{desc} … {elapsed}"
            self._bar = self._tqdm(desc=step, total=total or None, leave=False, bar_format=shown)
            self._step = step
        if self._bar is not None:
            self._bar.total = total or None
            self._bar.update(done - self._bar.n)
        if 0 < total <= done:
            self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __del__(self) -> None:
        self.close()  # of the last step, if it is not counted or failed


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
