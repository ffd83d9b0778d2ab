"""The weights half-way between those at the start of training and those at its end.

Fine-tuning learns the photos at hand and forgets some of what the backbone knew about all others.
With few photos the mean of the two is often better than either (Wortsman et al., Robust fine-tuning
of zero-shot models, 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightInterpolation:
    """Keeps a copy of the weights of ``network`` as they are now, in the CPU's memory."""

    def __init__(self, network: nn.Module) -> None:
        self._start = {
            name: value.to("cpu", copy=True) for name, value in network.state_dict().items()
        }

    @torch.no_grad()
    def to(self, end: nn.Module) -> nn.Module:
        """A network half-way to ``end``, which stays unchanged."""
        middle = copy.deepcopy(end)
        # Not the state_dict's entries: shared tensors have several names there.
        for name, value in (*middle.named_parameters(), *middle.named_buffers()):
            if name in self._start and value.is_floating_point():  # no counters
                value.lerp_(self._start[name].to(value), 0.5)
        return middle

    def state_dict(self) -> dict[str, Tensor]:
        """The copy, for a resumed run."""
        return self._start

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned, for the same network."""
        self._start = dict(state)
