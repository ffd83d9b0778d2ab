"""A bar with rate and time left, on stderr, and only where someone sits before it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def counting(what: str, *, done: int, total: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Yields what to call after each one.

    what   name of the things, in the plural
    done   how many were there before
    total  counts them all; asked only if the bar is shown
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {what}/s" if task.speed else "")

    shown = (TextColumn(what), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*shown, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, completed=done, total=max(total(), done))
        yield lambda: progress.advance(task)
