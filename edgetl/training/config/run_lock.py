"""Making a run folder, and using it: all processes of a run see it, and no other run does."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.errors import CheckpointError
from edgetl.system.file_lock import try_lock
from edgetl.training.config.run_folder import unreadable_folder

if TYPE_CHECKING:
    from edgetl.training.torch_env.distributed import Processes

_SECONDS_TO_APPEAR = 10  # until a new file must be visible on every machine
_descriptors: set[int] = set()


def make_folder(folder: Path) -> None:
    """Create a run folder, or check that the existing one is writable. Raises CheckpointError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        if folder.is_symlink():  # the system's reason is that it exists
            reason = "it is a link to what is not there"
        raise CheckpointError(
            f"{folder} can't be created: {reason}.", "Choose another folder with -o."
        ) from error
    probe = folder / ".writable"  # find out now, not when there are weights to lose
    try:
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have probed at the same time
    except OSError as error:
        raise CheckpointError(
            f"{folder} can't be written: {error.strerror}.", "Choose another folder with -o."
        ) from error


def require_seen_by_all(folder: Path, processes: Processes) -> None:
    """Check that ``folder`` is the same one in all processes, also on other machines.

    Raises CheckpointError, in every process, if one of them does not see the main process's files.
    """
    if processes.world_size == 1:
        return
    with (
        tempfile.NamedTemporaryFile(prefix=".seen-", dir=folder)
        if processes.is_main
        else nullcontext() as file
    ):
        name = Path(file.name).name if file else ""
        if processes.any(not _appears(folder / processes.all_gather(name)[0])):
            raise CheckpointError(
                f"Not every process sees the same {folder}.",
                "Choose a folder with -o that all machines share.",
            )


def _appears(path: Path) -> bool:
    """Whether ``path`` exists, or soon does: a network disk caches what is in a folder."""
    until = time.monotonic() + _SECONDS_TO_APPEAR
    while not path.exists():
        if time.monotonic() > until:
            return False
        for folder in (path.parent.parent, path.parent):  # listing a folder refreshes its cache
            with suppress(OSError):
                list(folder.iterdir())
        time.sleep(0.1)
    return True


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
