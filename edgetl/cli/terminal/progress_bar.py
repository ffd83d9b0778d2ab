"""The progress line of the commands, only where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edgetl.system.progress import Progress, no_progress
from edgetl.system.progress_line import ProgressLine


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yield the callback that draws the line, which is erased at the end.

    Where nobody would see the line, it is ``no_progress``.
    """
    if not _is_terminal():
        yield no_progress
        return
    line = ProgressLine()
    try:
        yield line
    finally:
        line.erase()


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
