"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes


def give_back_freed_memory() -> None:
    """Give pages that glibc's malloc keeps for later back to the system; elsewhere, do nothing.

    It keeps what other blocks lie above, in each thread's part of the memory, so that after models
    were replaced it holds several times what is in use. Takes milliseconds.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (TypeError, OSError, AttributeError):  # Windows, or another C library
        return
