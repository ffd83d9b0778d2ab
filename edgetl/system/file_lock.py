"""Locks on files and folders, of which the system lets go however their holder ends."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_fcntl: Any
try:
    _fcntl = import_module("fcntl")
except ImportError:  # Windows
    _fcntl = None


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder for as long as it is open, without waiting.

    True: done. False: another process holds it. None: this system or this disk has no locks, as some network disks
    don't; then it is the user's to keep two processes from one place.
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
