"""A network whose features are the means of a map, as class activation maps need it."""

from __future__ import annotations

import torch
from torch import nn

from helpers.tiny_network import LABELS


class PooledNetwork(nn.Module):
    """One convolution, whose mean over places goes to the head."""

    def __init__(self, *, relu: bool = True, channels_last: bool = False) -> None:
        super().__init__()
        self.relu, self.channels_last = relu, channels_last
        self.body = nn.Conv2d(3, 8, 3, stride=4)
        self.norm = nn.LayerNorm(8) if channels_last else nn.Identity()
        self.head = nn.Linear(8, len(LABELS))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.body(images)
        maps = self.norm(maps.permute(0, 2, 3, 1) if self.channels_last else maps)
        maps = maps.relu() if self.relu else maps
        return self.head(maps.mean((1, 2) if self.channels_last else (2, 3)))
