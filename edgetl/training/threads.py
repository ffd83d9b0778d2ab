"""How many cores there are to use, and when to use one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Let torch compute in the calling thread alone, if ``wanted``.

    For small products: waking the other threads costs more than they save, far more on a busy machine.
    """
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
