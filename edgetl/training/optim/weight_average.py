"""An exponential moving average of a network's weights, usually better than the last step's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.training.models.pretrained_weights import load_state


class WeightAverage:
    """A second network, in eval mode, whose weights follow those of the trained one.

    network  the trained one, on its device, with its frozen parts frozen
    decay    share of the average kept at each step, near 1. Early on less is kept,
             (1 + n) / (10 + n) after n steps, or a short run would mostly average its beginning.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        self._updates = 0
        # Pairs of (average, current), collected once: walking two networks takes milliseconds.
        parameters = zip(self.network.parameters(), network.parameters(), strict=True)
        buffers = list(zip(self.network.buffers(), network.buffers(), strict=True))
        averaged: list[tuple[Tensor, Tensor]] = [
            (mine, theirs.detach()) for mine, theirs in parameters if theirs.requires_grad
        ]
        averaged += [pair for pair in buffers if pair[1].is_floating_point()]  # batch norm's
        self._averages = [mine for mine, _ in averaged]
        self._currents = [theirs for _, theirs in averaged]
        self._counters = [pair for pair in buffers if not pair[1].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move one step towards the trained network. Counters are copied; frozen parts stay."""
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
        """Restore what ``state_dict`` returned, for the same network."""
        self._updates = int(state["updates"])
        load_state(self.network, state["network"])
