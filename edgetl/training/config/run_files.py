"""Writing the files of a run whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgetl.errors import CheckpointError, first_line
from edgetl.system.atomic_write import atomic_write


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
