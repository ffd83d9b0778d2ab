"""The trained part of a backbone; the rest is frozen, batch norm statistics included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from edgetl.training.models.backbone import Backbone
from edgetl.training.models.batch_norm import batch_norm_layers


class Trainable:
    """The part of a backbone that a strategy trains. Making one freezes the rest.

    norm_statistics  whether batch norm in the trained part measures its statistics again. A few
                     hundred photos of a few classes have other statistics than the photos of the
                     pretraining: measuring them batch by batch undoes much of what the backbone
                     knows (the accuracy of a fitted head fell from 100 % to 77 %).
    """

    def __init__(
        self, backbone: Backbone, strategy: str, blocks: int, *, norm_statistics: bool = True
    ) -> None:
        self._backbone = backbone
        self._norm_statistics = norm_statistics
        count = {"features": 0, "last-blocks": blocks, "full": len(backbone.blocks)}[strategy]
        self._trained_blocks = backbone.blocks[len(backbone.blocks) - count :]
        self._everything = strategy == "full"
        module = backbone.module
        module.requires_grad_(self._everything)
        for part in self._parts():
            part.requires_grad_(True)

    def train(self) -> None:
        """Training mode for the trained part; eval mode, which keeps statistics, for the rest."""
        self._backbone.module.train(self._everything)
        for part in self._parts():
            part.train()
        if not self._norm_statistics:
            for layer in batch_norm_layers(self._backbone.module):
                layer.eval()

    def _parts(self) -> list[nn.Module]:
        module = self._backbone.module
        blocks = [*self._trained_blocks, self._backbone.heads]
        return [module.get_submodule(path) for block in blocks for path in block]

    def parameter_groups(
        self, lr: float, weight_decay: float, layer_decay: float
    ) -> list[dict[str, Any]]:
        """The trained parameters for an optimizer.

        The learning rate is ``lr`` at the head and ``layer_decay`` times that in the first block;
        in between it falls by the same factor from block to block, so the number of blocks makes
        no difference. Vectors (biases, norms, scales, with any axes of 1) have no weight decay:
        it would hurt and regularise nothing.
        """
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for depth, parameter in self._by_depth():
            decayed = parameter.numel() > max(parameter.shape, default=1)
            rate = lr * layer_decay ** (depth / len(self._backbone.blocks))
            decay = weight_decay if decayed else 0.0
            group = groups.setdefault(
                (depth, decayed), {"params": [], "lr": rate, "weight_decay": decay}
            )
            group["params"].append(parameter)
        return [groups[key] for key in sorted(groups)]

    def _by_depth(self) -> Iterator[tuple[int, nn.Parameter]]:
        """(depth: 0 for the head, 1 for the last block, …; parameter)."""
        module = self._backbone.module
        depths = {
            id(parameter): depth
            for depth, paths in enumerate([self._backbone.heads, *reversed(self._backbone.blocks)])
            for path in paths
            for parameter in module.get_submodule(path).parameters()
        }
        for parameter in module.parameters():
            if parameter.requires_grad:
                # Position embeddings and class tokens are in no block: they are the deepest.
                yield depths.get(id(parameter), len(self._backbone.blocks)), parameter
