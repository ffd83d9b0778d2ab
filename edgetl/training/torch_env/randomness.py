"""Random numbers that depend only on the place in the run: a resumed run draws the same."""

from __future__ import annotations

import numpy as np

# What a number is for: one step draws different numbers for its photos and for its dropout.
ORDER, WARP, STEP, MIXING, HEAD = range(5)


def numpy_generator(*place: int) -> np.random.Generator:
    """A generator for a place in the run, such as (seed, WARP, epoch); the same on all machines."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(place)))


def torch_seed(*place: int) -> int:
    """A seed for torch's generators for one place in the run; 63 bits, as torch takes them."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1
