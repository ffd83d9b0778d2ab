"""An exponential average of a network's weights: smoother than the last step's, and usually better."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.training.models.pretrained_weights import load_state


class WeightAverage:
    """A second network, in eval mode, whose weights follow those of the trained one.

    network  the trained one, on its device, what is frozen in it frozen
    decay    share of the average kept at each step, near 1. Early on less is kept, (1 + n) / (10 + n) after n steps,
           or a short run would mostly average its own beginning.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        self._updates = 0
        # Gathered once: walking through two networks costs milliseconds at every step.
        parameters = zip(self.network.parameters(), network.parameters(), strict=True)
        buffers = list(zip(self.network.buffers(), network.buffers(), strict=True))
        moving: list[tuple[Tensor, Tensor]] = [
            (mine, theirs.detach()) for mine, theirs in parameters if theirs.requires_grad
        ]
        moving += [
            (mine, theirs) for mine, theirs in buffers if theirs.is_floating_point()
        ]  # batch norm's statistics
        self._averages, self._currents = (
            [mine for mine, _ in moving],
            [theirs for _, theirs in moving],
        )
        self._counters = [
            (mine, theirs) for mine, theirs in buffers if not theirs.is_floating_point()
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the trained network by one step; counters are copied, and what is frozen stays as it is."""
        self._updates += 1
        keep = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._averages, self._currents, 1.0 - keep)
        if self._counters:
            torch._foreach_copy_(
                [mine for mine, _ in self._counters], [theirs for _, theirs in self._counters]
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a resumed run."""
        return {"updates": self._updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What ``state_dict`` gave, of the same network."""
        self._updates = int(state["updates"])
        load_state(self.network, state["network"])
