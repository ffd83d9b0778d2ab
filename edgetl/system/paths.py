"""Questions about paths that Python's versions answer differently."""

from __future__ import annotations

import os
from pathlib import Path

from edgetl.errors import EdgetlError


def is_there(path: Path) -> bool:
    """Whether ``path`` exists. Raises OSError where that can't be told, for lack of permission.

    ``Path.exists`` returns False there from Python 3.14 on, and messages would call it missing.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def name_below(path: Path, folder: Path) -> str:
    """``path`` relative to ``folder``, with slashes; as it is, if it lies elsewhere."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def real_path(path: str | Path) -> Path:
    """``path``, absolute, links followed; ``Path.resolve`` raises for loops up to Python 3.12."""
    return Path(os.path.realpath(path))


def require_current_folder(kind: type[EdgetlError]) -> None:
    """Raises ``kind`` if the current folder was deleted: importing torch would crash there."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise kind(
            "The current folder does not exist any more.", "Go to another one with cd."
        ) from error
