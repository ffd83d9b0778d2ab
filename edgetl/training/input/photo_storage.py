"""Room for decoded photos: memory, or a file without a name that is gone when the run is, however it ends."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TrainingError
from edgetl.training.torch_env.distributed import Processes

_PREFIX = ".pixels-"
_SHARE_OF_MEMORY = 0.5  # of what is free; the rest is for the network and everyone else
_SHARE_OF_DISK = 0.8
SHARED_MEMORY = Path("/dev/shm")
_GROUP = Path("/sys/fs/cgroup")
_SIZES = ("bytes", "kB", "MB", "GB")


def allocate(
    shape: tuple[int, ...], where: str, folder: Path, processes: Processes | None = None
) -> NDArray[np.uint8] | None:
    """A uint8 array of zeros.

    where      "memory"; "disk": a file in ``folder``; "auto": the first of the two that fits, or None
    processes  those on one machine then share the array; each must ask for it

    Raises TrainingError if there is no room for what was asked for.
    """
    size = max(int(np.prod(shape, dtype=np.int64)), 1)
    shared = processes is not None and processes.any(
        processes.local_world_size > 1
    )  # on another machine there may be but one
    in_memory = available_memory() * _SHARE_OF_MEMORY >= size
    in_memory = in_memory and (not shared or free_bytes(SHARED_MEMORY) * _SHARE_OF_MEMORY >= size)
    on_disk = free_bytes(folder) * _SHARE_OF_DISK >= size
    if processes is not None:  # all must decide alike
        in_memory, on_disk = not processes.any(not in_memory), not processes.any(not on_disk)
    if where == "memory" and not in_memory:
        raise TrainingError(
            f"Decoded training photos take {_readable(size)}: too much memory.",
            "Use --cache disk or off.",
        )
    if where == "auto" and not (in_memory or on_disk):
        return None
    if where == "disk" or not in_memory:
        return _mapped(shape, size, folder, processes if shared else None)
    return _mapped(shape, size, SHARED_MEMORY, processes) if shared else np.zeros(shape, np.uint8)


def available_memory() -> int:
    """Bytes that can be taken without swapping, as far as the system says; a container's limit (cgroup v2) counts."""
    free = [1 << 62]
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(
            next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        )
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit, used = (
            int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
        stats = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        # Files that were read count as used, until someone needs the room: every photo just was.
        free.append(limit - used + int(stats.get("inactive_file", 0)))
    return min(free) if len(free) > 1 else 4 << 30


def _mapped(
    shape: tuple[int, ...], size: int, folder: Path, processes: Processes | None
) -> NDArray[np.uint8]:
    try:
        with _opened(size, folder, processes) as file:
            mapping = mmap.mmap(file.fileno(), size)  # keeps the file alive without its name
    except OSError as error:
        raise TrainingError(
            f"There is no room in {folder} for {_readable(size)} of decoded photos: {error.strerror}.",
            "Use --cache off.",
        ) from error
    return np.frombuffer(mapping, np.uint8, int(np.prod(shape, dtype=np.int64))).reshape(shape)


def _opened(size: int, folder: Path, processes: Processes | None) -> IO[bytes]:
    """A file of this size without a name: its room is free again however the processes end."""
    if processes is not None:
        return os.fdopen(_open_together(size, folder, processes), "r+b")
    file = tempfile.TemporaryFile(prefix=_PREFIX, dir=folder)  # noqa: SIM115  who asked for it closes it
    try:
        _reserve(file.fileno(), size)
    except OSError:
        file.close()
        raise
    return file


def _reserve(descriptor: int, size: int) -> None:
    """Take the room now: a full disk would otherwise be a SIGBUS at the first write to a page."""
    reserve: Callable[[int, int, int], None] | None = getattr(os, "posix_fallocate", None)
    if reserve is not None:
        reserve(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _open_together(size: int, folder: Path, processes: Processes) -> int:
    """One file for all processes on this machine. The name goes as soon as each has opened it."""
    names = processes.all_gather(f"{_PREFIX}{os.uname().nodename}-{os.getpid()}")
    path = folder / names[processes.rank - processes.local_rank]
    descriptor = -1
    if processes.local_rank == 0:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _reserve(descriptor, size)
        except OSError:  # what was reserved so far would stay taken
            path.unlink()
            raise
    processes.barrier()
    if processes.local_rank != 0:
        descriptor = os.open(path, os.O_RDWR)
    processes.barrier()
    if processes.local_rank == 0:
        path.unlink(missing_ok=True)
    return descriptor


def remove_leftovers(folder: Path) -> None:
    """Decoded photos of processes that were killed before the name of their file was gone. For who is alone in ``folder``."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            path.unlink()


def free_bytes(folder: Path) -> int:
    """What may be written into ``folder``; 0 where there is none."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _readable(size: float) -> str:
    steps = min(int(math.log(size, 1000)), len(_SIZES) - 1)
    return f"{size / 1000**steps:.1f} {_SIZES[steps]}"
