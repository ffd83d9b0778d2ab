"""Batches that are too large for the memory."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from edgetl.errors import TrainingError
from edgetl.training.torch_env.oom_retry import halve_on_oom


def test_batches_too_large_for_the_memory_are_halved(monkeypatch):
    most, sizes = 3, []

    def compute(pixels: np.ndarray) -> torch.Tensor:
        if len(pixels) > most:
            raise torch.OutOfMemoryError
        sizes.append(len(pixels))
        return torch.from_numpy(pixels) * 2

    pixels = np.arange(11, dtype=np.uint8)
    assert halve_on_oom(compute, pixels).tolist() == (pixels * 2).tolist()
    assert max(sizes) <= most and sum(sizes) == 11
    most = 0
    with pytest.raises(TrainingError, match="too small for one photo"):
        halve_on_oom(compute, pixels)


@pytest.mark.parametrize(
    ("said", "halved"), [("FIND was unable to find an engine", True), ("shapes do not fit", False)]
)
def test_only_out_of_memory_errors_are_retried(said, halved):
    def compute(pixels: np.ndarray) -> torch.Tensor:
        if len(pixels) > 2:
            raise RuntimeError(said)
        return torch.from_numpy(pixels)

    with nullcontext() if halved else pytest.raises(RuntimeError, match=said):
        assert halve_on_oom(compute, np.arange(4, dtype=np.uint8)).tolist() == [0, 1, 2, 3]
