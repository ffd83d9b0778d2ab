"""The way of batches and networks to the device."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def to_device(part: Tensor, device: torch.device) -> Tensor:
    """``part`` on ``device``, of the same shape and dtype; copied to a GPU beside what it computes."""
    if device.type == "cuda" and part.device.type == "cpu" and not part.is_pinned():
        part = part.pin_memory()  # a copy from other memory would wait for the GPU
    return part.to(device, non_blocking=True)


def channels_last(network: Network, device: torch.device) -> Network:
    """``network``, moved to ``device``, its filters in the layout in which convolutions are fastest."""
    network.to(device)
    for tensor in (*network.parameters(), *network.buffers()):
        if (
            tensor.dim() == 4
        ):  # torch's own way stumbles over filters of three dimensions, as lambda networks have
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network
