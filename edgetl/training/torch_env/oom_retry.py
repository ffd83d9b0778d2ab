"""As many photos at once as the GPU's memory holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.errors import TrainingError


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that a GPU's memory is too small. torch has another one where cuDNN has room for no algorithm."""
    return isinstance(error, torch.OutOfMemoryError) or "unable to find an engine" in str(error)


def halve_on_oom(
    compute: Callable[[NDArray[np.uint8]], Tensor], pixels: NDArray[np.uint8]
) -> Tensor:
    """``compute(pixels)``, where memory is too small for it in two halves, and so on. pixels: uint8 [N, h, w, 3].

    ``compute`` must treat every photo by itself. Raises TrainingError if there is no room for a single one.
    """
    try:
        return compute(pixels)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if len(pixels) == 1:
            raise TrainingError(
                "The GPU's memory is too small for one photo.",
                "End what else runs there, or give a smaller --image-size.",
            ) from error
    torch.cuda.empty_cache()  # not before the error is gone: it holds on to what the attempt had computed
    half = len(pixels) // 2
    return torch.cat([halve_on_oom(compute, pixels[:half]), halve_on_oom(compute, pixels[half:])])
