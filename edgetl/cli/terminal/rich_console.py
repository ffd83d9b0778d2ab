"""The console that commands with tables print to."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

_UNLIMITED = 10_000  # columns


def open_console(**options: Any) -> Console:
    """rich's console with ``options``. In a pipe or a CI log, it wraps and cuts nothing."""
    console = Console(highlight=False, emoji=False, **options)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNLIMITED
    return console
