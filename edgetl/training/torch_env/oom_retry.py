"""Retrying a batch in smaller parts when the GPU runs out of memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.errors import TrainingError


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` means that the GPU's memory is full; cuDNN has its own way to say so."""
    return isinstance(error, torch.OutOfMemoryError) or "unable to find an engine" in str(error)


def halve_on_oom(
    compute: Callable[[NDArray[np.uint8]], Tensor], pixels: NDArray[np.uint8]
) -> Tensor:
    """``compute(pixels)``; if memory is too small, in two halves, each halved again if need be.

    compute  treats every photo independently of the others
    pixels   uint8 [N, h, w, 3]

    Raises TrainingError if there is not enough memory for a single photo.
    """
    try:
        return compute(pixels)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if len(pixels) == 1:
            raise TrainingError(
                "The GPU's memory is too small for one photo.",
                "Stop other programs on the GPU, or choose a smaller --image-size.",
            ) from error
    # Only now, since the exception kept alive what the attempt had computed.
    torch.cuda.empty_cache()
    half = len(pixels) // 2
    return torch.cat([halve_on_oom(compute, pixels[:half]), halve_on_oom(compute, pixels[half:])])
