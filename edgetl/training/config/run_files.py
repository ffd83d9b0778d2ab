"""Making a run folder, and writing its files whole or not at all."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.errors import CheckpointError, first_line
from edgetl.system.atomic_write import atomic_write

if TYPE_CHECKING:
    from edgetl.training.torch_env.distributed import Processes

_SECONDS_TO_APPEAR = 10  # until a new file must be visible on every machine


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


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """``atomic_write`` for the files of a run: readers see the old content or the new one.

    Raises CheckpointError naming ``path`` if the disk is full or the folder can't be written;
    ``path`` is then unchanged.
    """
    try:
        atomic_write(path, write)
    except (OSError, RuntimeError) as error:  # torch.save reports a failed write as RuntimeError
        reason = (isinstance(error, OSError) and error.strerror) or first_line(error)
        if "inline_container" in reason:  # where torch notices that less was written
            reason = "the disk took only a part of it"
        raise CheckpointError(
            f"{path} can't be written: {reason}.",
            "Free some disk space, and check that files can be written there.",
        ) from error
