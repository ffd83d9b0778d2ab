"""Moving batches and networks to the device."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def to_device(part: Tensor, device: torch.device) -> Tensor:
    """``part`` on ``device``. A copy to a GPU overlaps with what the GPU computes."""
    if device.type == "cuda" and part.device.type == "cpu" and not part.is_pinned():
        part = part.pin_memory()  # a copy from pageable memory would wait for the GPU
    return part.to(device, non_blocking=True)


def channels_last(network: Network, device: torch.device) -> Network:
    """``network`` moved to ``device``, with filters in the fastest layout for convolutions."""
    network.to(device)
    for tensor in (*network.parameters(), *network.buffers()):
        # network.to(memory_format=…) fails for 5-dimensional filters, as lambda networks have.
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network
