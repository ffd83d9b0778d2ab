"""What a check found, as files for people and for machines: HTML, JSON, JUnit."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edgetl.errors import EdgetlError


def write_report(path: str | Path, content: str) -> None:
    """Put ``content`` at ``path`` in one step, its folders made as needed: a reader sees all of it or the file before.

    Raises EdgetlError if it can't be written: what was compared was compared.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            # A file's name may hold bytes that are no text; they are written as escapes.
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(content)
            Path(draft).chmod(0o644)  # mkstemp's 0600 would keep a CI system from collecting it
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EdgetlError(f"The report {path} can't be written: {error.strerror or error}.") from error
