"""A network that also gives its evidence: which places of a photo speak for each class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from edgetl.errors import ExportError
from edgetl.runtime.bundle.tensor_names import EVIDENCE
from edgetl.training.models.checkpoint import Trained
from edgetl.training.models.evidence import FeatureMaps, call_with_evidence, find_maps
from edgetl.training.models.tapped_network import TappedNetwork


class MappedNetwork(TappedNetwork):
    """``network``, a plain or a tapped one, with ``evidence`` [N, classes, y, x] as its last value.

    The sum of a class's evidence over all places is its logit without the bias.
    """

    def __init__(self, network: nn.Module, maps: FeatureMaps) -> None:
        if isinstance(network, TappedNetwork):
            super().__init__(network.network, network.taps)
        else:
            super().__init__(network, {})
        self._maps = maps

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values after the logits."""
        return (*super().outputs, EVIDENCE)

    @property
    def biases(self) -> tuple[float, ...]:
        """Of the logits."""
        layer: Any = self.network.get_submodule(self._maps.head)
        return tuple(layer.bias.tolist())

    def forward(self, normalized: Tensor) -> tuple[Tensor, ...]:
        """Normalized float32 [N, 3, h, w] → logits, and the values of ``outputs``."""
        values, evidence = call_with_evidence(super().forward, self.network, self._maps, normalized)
        return (*values, evidence)


def maps_of(trained: Trained) -> FeatureMaps | None:
    """The maps of a trained network; None if their sums would not be its logits."""
    size = trained.card.spec.fixed_size
    return None if size is None else find_maps(trained.network, trained.levels, size)


def require_maps(trained: Trained) -> FeatureMaps:
    """The maps of a trained network. Raises ExportError if their sums would not be its logits."""
    maps = maps_of(trained)
    if maps is None:
        raise ExportError(
            f"{trained.card.backbone} has no evidence maps: its logits are not sums over the "
            "places of a photo.",
            "Leave out --maps; edgetl explain RUN PHOTO shows where it looks by another method.",
        )
    return maps
