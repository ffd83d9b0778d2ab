"""Keeps memory between the steps of a training run, where the C library would give it back and fetch it again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Of glibc's mallopt, and the values that it starts with.
_TRIM_THRESHOLD, _TRIM_DEFAULT, _NEVER = -1, 128 * 1024, -1
_MMAP_MAX, _MMAP_DEFAULT = -4, 65536


@contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """Have freed memory stay with the process while a network is trained on the CPU.

    A step makes and frees gigabytes of activations. glibc maps every large block anew, page by page and each page zeroed
    first, and that took two thirds of a step's time. Other C libraries and allocators are left as they are.
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
        mallopt(_TRIM_THRESHOLD, _TRIM_DEFAULT)
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt() -> Any:
    """glibc's function, or None under another C library."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt if hasattr(library, "gnu_get_libc_version") else None
    except (TypeError, OSError, AttributeError):  # Windows has no library of the process itself
        return None
