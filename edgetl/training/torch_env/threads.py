"""On how many cores torch computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on ``count`` cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread(wanted: bool = True) -> AbstractContextManager[None]:
    """Let torch compute in the calling thread alone, if ``wanted``.

    For small products: waking the other threads costs more than they save, far more on a busy machine.
    """
    return torch_threads(1 if wanted else torch.get_num_threads())
