"""Where decoded photos are stored: in memory, or in an unnamed file that goes when the run ends."""

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
_SHARE_OF_MEMORY = 0.5  # of what is free; the rest is for the network and other programs
_SHARE_OF_DISK = 0.8
SHARED_MEMORY = Path("/dev/shm")
_CGROUP = Path("/sys/fs/cgroup")
_UNITS = ("bytes", "kB", "MB", "GB")


def allocate(
    shape: tuple[int, ...], where: str, folder: Path, processes: Processes | None = None
) -> NDArray[np.uint8] | None:
    """A uint8 array of zeros.

    where      "memory"; "disk": a file in ``folder``; "auto": the first of them that has room, or
               None if neither has
    processes  those on one machine share the array; each of them must call this

    Raises TrainingError if there is no room for it where it was asked for.
    """
    size = max(int(np.prod(shape, dtype=np.int64)), 1)
    # All processes must decide alike, also one that is alone on its machine.
    shared = processes is not None and processes.any(processes.local_world_size > 1)
    in_memory = available_memory() * _SHARE_OF_MEMORY >= size
    in_memory = in_memory and (not shared or free_bytes(SHARED_MEMORY) * _SHARE_OF_MEMORY >= size)
    on_disk = free_bytes(folder) * _SHARE_OF_DISK >= size
    if processes is not None:
        in_memory, on_disk = not processes.any(not in_memory), not processes.any(not on_disk)
    if where == "memory" and not in_memory:
        raise TrainingError(
            f"Decoded training photos take {_readable(size)}, which is too much memory.",
            "Use --cache disk or --cache off.",
        )
    if where == "auto" and not (in_memory or on_disk):
        return None
    if where == "disk" or not in_memory:
        return _mapped(shape, size, folder, processes if shared else None)
    return _mapped(shape, size, SHARED_MEMORY, processes) if shared else np.zeros(shape, np.uint8)


def available_memory() -> int:
    """Bytes that can be allocated without swapping, within a container's limit (cgroup v2).

    4 GiB where the system does not say.
    """
    free = [1 << 62]
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(
            next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        )
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit, used = (
            int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
        stats = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        # The page cache counts as used, but is free to take. Every photo has just been read.
        free.append(limit - used + int(stats.get("inactive_file", 0)))
    return min(free) if len(free) > 1 else 4 << 30


def _mapped(
    shape: tuple[int, ...], size: int, folder: Path, processes: Processes | None
) -> NDArray[np.uint8]:
    try:
        with _unnamed_file(size, folder, processes) as file:
            mapping = mmap.mmap(file.fileno(), size)  # keeps the file although it has no name
    except OSError as error:
        raise TrainingError(
            f"There is no room in {folder} for {_readable(size)} of decoded photos: "
            f"{error.strerror}.",
            "Use --cache off.",
        ) from error
    return np.frombuffer(mapping, np.uint8, int(np.prod(shape, dtype=np.int64))).reshape(shape)


def _unnamed_file(size: int, folder: Path, processes: Processes | None) -> IO[bytes]:
    """A file without a name: its space is free again however the processes end."""
    if processes is not None:
        return os.fdopen(_open_shared(size, folder, processes), "r+b")
    file = tempfile.TemporaryFile(prefix=_PREFIX, dir=folder)  # noqa: SIM115  the caller closes it
    try:
        _reserve(file.fileno(), size)
    except OSError:
        file.close()
        raise
    return file


def _reserve(descriptor: int, size: int) -> None:
    """Allocate the space now: on a full disk, a write to the mapping would raise SIGBUS."""
    reserve: Callable[[int, int, int], None] | None = getattr(os, "posix_fallocate", None)
    if reserve is not None:
        reserve(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _open_shared(size: int, folder: Path, processes: Processes) -> int:
    """One file for all processes on this machine; its name is deleted once each has opened it."""
    names = processes.all_gather(f"{_PREFIX}{os.uname().nodename}-{os.getpid()}")
    path = folder / names[processes.rank - processes.local_rank]
    descriptor = -1
    if processes.local_rank == 0:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _reserve(descriptor, size)
        except OSError:  # else the space reserved so far would stay taken
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
    """Delete files of processes that were killed before they could. ``folder`` must be locked."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            path.unlink()


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of ``folder``; 0 if there is no such folder."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _readable(size: float) -> str:
    exponent = min(int(math.log(size, 1000)), len(_UNITS) - 1)
    return f"{size / 1000**exponent:.1f} {_UNITS[exponent]}"
