"""Settings of glibc's malloc that keep freed memory between the steps of a training run."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from edgetl.system.freed_memory import give_back_freed_memory

# Parameters and values of glibc's mallopt. glibc raises its thresholds as large blocks are freed,
# but no longer once one of them was set: so they are left where they would have ended.
_TRIM_THRESHOLD, _NEVER, _TRIM_LARGEST = -1, -1, 64 << 20
_MMAP_THRESHOLD, _MMAP_LARGEST = -3, 32 << 20
_MMAP_MAX, _MMAP_DEFAULT = -4, 65536


@contextmanager
def keep_freed_memory(device: torch.device) -> Iterator[None]:
    """Keep freed memory in the process while a network is trained on the CPU.

    A step allocates and frees gigabytes of activations. glibc maps every large block anew, and the
    kernel zeroes each of its pages, which took two thirds of a step's time and more. Other C
    libraries and allocators are not changed.
    """
    mallopt = _mallopt() if device.type == "cpu" else None
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        mallopt(_MMAP_MAX, _MMAP_DEFAULT)
        mallopt(_MMAP_THRESHOLD, _MMAP_LARGEST)
        mallopt(_TRIM_THRESHOLD, _TRIM_LARGEST)
        give_back_freed_memory()


def _mallopt() -> Any:
    """glibc's function, or None under another C library."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt if hasattr(library, "gnu_get_libc_version") else None
    except (TypeError, OSError, AttributeError):  # as on Windows
        return None
