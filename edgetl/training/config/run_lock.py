"""A lock on a run folder, so that only one process at a time trains in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgetl.errors import CheckpointError
from edgetl.system.file_lock import try_lock
from edgetl.training.config.run_folder import unreadable_folder

_descriptors: set[int] = set()


def _close_all() -> None:
    # A lock lasts as long as any process has its descriptor, and a data loader's worker,
    # which inherits it, may outlive the run.
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_close_all)


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Lock an existing run folder; the system releases the lock however the process ends.

    Does nothing on Windows, where a folder can't be opened.
    Raises CheckpointError if another process holds the lock, or ``folder`` can't be read.
    """
    if sys.platform == "win32":
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise unreadable_folder(folder, error) from error
    if try_lock(descriptor) is False:
        os.close(descriptor)
        raise CheckpointError(
            f"Another process is training in {folder}.",
            "Wait for it or stop it, or choose another folder with -o.",
        )
    _descriptors.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _descriptors:  # not in a forked process
            _descriptors.remove(descriptor)
            os.close(descriptor)
