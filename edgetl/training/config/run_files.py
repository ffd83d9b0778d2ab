"""Files of a run folder, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.errors import CheckpointError, first_line

if TYPE_CHECKING:
    from edgetl.training.torch_env.distributed import Processes

_SECONDS_TO_APPEAR = 10


def make_folder(folder: Path) -> None:
    """Make a run folder, or see that files can be written to the one that is there. Raises CheckpointError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{folder} can't be made: {error.strerror}.", "Choose another folder with -o."
        ) from error
    probe = folder / ".writable"  # now, not when there are weights to lose
    try:
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have tried, too
    except OSError as error:
        raise CheckpointError(
            f"{folder} can't be written: {error.strerror}.", "Choose another folder with -o."
        ) from error


def require_seen_by_all(folder: Path, processes: Processes) -> None:
    """Raises CheckpointError in every process if one, on another machine, sees another run folder than the leading one."""
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
    """Whether it is there, or soon: a network disk believes for a while that a folder is not there, until it is listed."""
    until = time.monotonic() + _SECONDS_TO_APPEAR
    while not path.exists():
        if time.monotonic() > until:
            return False
        for folder in (path.parent.parent, path.parent):
            with suppress(OSError):
                list(folder.iterdir())
        time.sleep(0.1)
    return True


def part_of(name: str) -> str:
    """What a file is called while it is written. Always the same: what a killed run left is written over."""
    return f".{name}.part"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place: a reader sees the old or the new one.

    Raises CheckpointError naming ``path`` if the disk is full or the folder can't be written; what was there stays.
    """
    temporary = path.with_name(part_of(path.name))
    try:
        temporary.touch()  # torch would not say what is wrong with the folder
        write(temporary)
        with temporary.open(
            "rb+"
        ) as file:  # on the disk before the name points to it, or a power cut leaves it empty
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a failed write as RuntimeError
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        )
        if "inline_container" in reason:  # torch's name for a write that wrote less
            reason = "the disk took only a part of it"
        raise CheckpointError(
            f"{path} can't be written: {reason}.",
            "Free some space, or see that files can be written there.",
        ) from error
