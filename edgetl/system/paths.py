"""Questions about paths that Python answers in other ways from one version to the next."""

from __future__ import annotations

import os
from pathlib import Path


def is_there(path: Path) -> bool:
    """Whether there is something at ``path``. Raises OSError where that can't be told, as in a closed folder.

    There, ``Path.exists`` and its like say no from Python 3.14 on, and what nobody may see would be called missing.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def real_path(path: str | Path) -> Path:
    """``path``, absolute and without links. For links that lead in a circle ``Path.resolve`` raises up to Python 3.12."""
    return Path(os.path.realpath(path))
