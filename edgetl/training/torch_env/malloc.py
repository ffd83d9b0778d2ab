"""Keeps memory between the steps of a training run, where the C library would give it back and fetch it again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Of glibc's mallopt. It raises its thresholds as large blocks are freed, but never again once it was told any: so it is
# left where it would have ended.
_TRIM_THRESHOLD, _NEVER, _TRIM_LARGEST = -1, -1, 64 << 20
_MMAP_THRESHOLD, _MMAP_LARGEST = -3, 32 << 20
_MMAP_MAX, _MMAP_DEFAULT = -4, 65536


@contextmanager
def keep_freed_memory(device: torch.device) -> Iterator[None]:
    """Have freed memory stay with the process while a network is trained on the CPU.

    A step makes and frees gigabytes of activations. glibc maps every large block anew, page by page and each page zeroed
    first, which took two thirds of a step's time and more. Other C libraries and allocators are left as they are.
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
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt() -> Any:
    """glibc's function, or None under another C library."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt if hasattr(library, "gnu_get_libc_version") else None
    except (TypeError, OSError, AttributeError):  # Windows has no library of the process itself
        return None
