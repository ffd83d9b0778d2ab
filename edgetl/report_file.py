"""A report that the user named a file for, put in place in one step."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from edgetl.errors import EdgetlError
from edgetl.workplace import umask


def write_report_file(path: str | Path, content: str) -> None:
    """Put ``content`` at ``path`` in one step, its folders made as needed: a reader sees all of it or the file before.

    Through a link, or into what is no file (a pipe, a terminal), it is written as it comes.

    Raises EdgetlError if it can't be written: what was compared was compared.
    """
    path = Path(path)
    # A file's name may hold bytes that are no text; they are written as escapes.
    text: Any = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):  # /dev/stdout, a pipe: nothing may take its place
            path.write_text(content, **text)
            return
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", **text) as file:
                file.write(content)
            Path(draft).chmod(0o666 & ~umask())  # mkstemp's 0600 would keep a CI system from collecting it
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EdgetlError(f"The report {path} can't be written: {error.strerror or error}.") from error
