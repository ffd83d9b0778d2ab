"""Locks on open files and folders, which the system releases however the process ends."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_fcntl: Any
try:
    _fcntl = import_module("fcntl")
except ImportError:  # Windows
    _fcntl = None


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder until it is closed, without waiting.

    True: locked. False: another process holds the lock. None: this system or file system has no
    locks, as some network file systems don't; then it is up to the user to start only one process.
    """
    if _fcntl is None:
        return None
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
