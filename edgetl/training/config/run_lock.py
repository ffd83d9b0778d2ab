"""One run a folder at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgetl.errors import CheckpointError
from edgetl.system.file_lock import try_lock

_held: set[int] = set()


def _let_go() -> None:
    """In a forked process: a lock is held as long as anyone has its descriptor, and who decodes photos may live longer."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Hold an existing run folder; the system lets go of it however the process ends.

    Raises CheckpointError if another process holds it, or it may not be read.
    """
    if sys.platform == "win32":  # there, a folder can't be opened
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise CheckpointError(
            f"{folder} can't be read: {error.strerror}.", "Choose another folder with -o."
        ) from error
    if try_lock(descriptor) is False:
        os.close(descriptor)
        raise CheckpointError(
            f"Another process is training in {folder}.",
            "Wait for it or stop it, or choose another folder with -o.",
        )
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # not in a forked process
            _held.remove(descriptor)
            os.close(descriptor)
