"""The way of a batch from the processor's memory to the device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(part: Tensor, device: torch.device) -> Tensor:
    """``part`` on ``device``, of the same shape and dtype; copied to a GPU beside what it computes."""
    if device.type == "cuda" and part.device.type == "cpu" and not part.is_pinned():
        part = part.pin_memory()  # a copy from other memory would wait for the GPU
    return part.to(device, non_blocking=True)
