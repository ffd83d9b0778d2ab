"""An exponential average of a network's weights: smoother than the last step's, and usually better."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """A second network, in eval mode, whose weights follow those of the trained one.

    decay  share of the average kept at each step, near 1. Early on less is kept, (1 + n) / (10 + n) after n steps,
           or a short run would mostly average its own beginning.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards ``network`` by one step; counters are copied, and what is frozen in both stays as it is."""
        self._updates += 1
        keep = min(self._decay, (1 + self._updates) / (10 + self._updates))
        averages, currents = self._moving(network)
        torch._foreach_lerp_(averages, currents, 1.0 - keep)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            if not mine.is_floating_point():
                mine.copy_(theirs)

    def _moving(self, network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Trained parameters and floating-point buffers (batch norm's statistics), with their averages."""
        parameters = zip(self.network.parameters(), network.parameters(), strict=True)
        buffers = zip(self.network.buffers(), network.buffers(), strict=True)
        pairs: list[tuple[Tensor, Tensor]] = [(mine, theirs) for mine, theirs in parameters if theirs.requires_grad]
        pairs += [(mine, theirs) for mine, theirs in buffers if theirs.is_floating_point()]
        return [mine for mine, _ in pairs], [theirs.detach() for _, theirs in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a resumed run."""
        return {"updates": self._updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What ``state_dict`` gave, of the same network."""
        self._updates = int(state["updates"])
        self.network.load_state_dict(state["network"])
