"""Torch's global flags, each set for a block and put back: precision, determinism, threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

_OFF, _WARN = 0, 1  # of torch's modes of determinism


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32, to which GPUs round the inputs of convolutions by default, losing three digits.

    For what is validated or kept, which must be what another device computes.
    """
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Turn torch's deterministic algorithms on, with a warning where it has none."""
    before = torch.get_deterministic_debug_mode()
    _set_debug_mode(_WARN)
    try:
        yield
    finally:
        _set_debug_mode(before)


def _set_debug_mode(mode: int) -> None:
    """Without importing the compiler, which keeps the setting, too, but takes a second or more."""
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(mode != _OFF, warn_only=mode == _WARN)
    else:
        torch.set_deterministic_debug_mode(mode)


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """The same bits each time on the CPU, the fastest kernels on a GPU.

    The state of torch's random generators is restored afterwards.
    """
    if device.type == "cpu":
        memory: Any = torch.utils.deterministic
        fill = memory.fill_uninitialized_memory
        memory.fill_uninitialized_memory = False  # costs time, and only matters to faulty programs
        try:
            with deterministic_algorithms(), torch.random.fork_rng(devices=[]):
                yield
        finally:
            memory.fill_uninitialized_memory = fill
    else:
        benchmark = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True  # shapes stay the same: trying every kernel pays
        try:
            with torch.random.fork_rng(devices=[device]):
                yield
        finally:
            torch.backends.cudnn.benchmark = benchmark


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch compute in ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread(wanted: bool = True) -> AbstractContextManager[None]:
    """Have torch compute in the calling thread alone, if ``wanted``.

    For small products: waking other threads costs more than they save, and far more on a busy
    machine.
    """
    return torch_threads(1 if wanted else torch.get_num_threads())
