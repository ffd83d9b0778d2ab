"""Randomness that depends on where in the run we are, not on what ran before: a resumed run draws the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# What a number is drawn for: the same step draws different numbers for its photos and for its dropout.
ORDER, WARP, STEP, MIXING, HEAD = range(5)


def numpy_generator(*place: int) -> np.random.Generator:
    """A generator for one place in the run, such as (seed, WARP, epoch). The same everywhere, on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(place)))


def torch_seed(*place: int) -> int:
    """A seed for torch's generators at one place in the run."""
    return (
        int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1
    )  # torch takes 63 bits


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """The same bits each time on the CPU, the fastest kernels on a GPU. Global random state is put back afterwards."""
    if device.type != "cpu":
        benchmark = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = (
            True  # shapes stay the same, so trying every kernel once pays
        )
        try:
            with torch.random.fork_rng(devices=[device]):
                yield
        finally:
            torch.backends.cudnn.benchmark = benchmark
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    switches: Any = torch.utils.deterministic
    fill = switches.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    switches.fill_uninitialized_memory = False  # only helps who reads memory that nobody wrote
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        switches.fill_uninitialized_memory = fill
