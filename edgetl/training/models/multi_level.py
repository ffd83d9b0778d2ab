"""A multi-level head: it also uses the mean feature maps of earlier stages of the network.

The last layer's features are made for the classes that a backbone was trained on. What earlier
stages know of shape and texture is not, and helps a head on photos unlike those of the pretraining
(Evci et al., Head2Toe, 2022). The network itself is not changed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.errors import TrainingError
from edgetl.training.models.backbone import Backbone, Level
from edgetl.training.models.blocks import run_once

_MOST_LEVELS = 3  # the last ones: more gained nothing
_LINEAR = "linear"


class LevelConcat(nn.Module):
    """Features float32 [N, f] → [N, f + c₁ + c₂ …]: with the means of the maps that hooks saw."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._means: list[Tensor | None] = [None] * count

    def record(self, index: int, feature_map: Tensor) -> None:
        """Remember the mean of a map, float32 [N, c, h, w], for the next forward call."""
        self.set_mean(index, F.adaptive_avg_pool2d(feature_map, 1).flatten(1))

    def set_mean(self, index: int, mean: Tensor) -> None:
        """Remember a mean, float32 [N, c], that was computed before, for the next forward call."""
        self._means[index] = mean

    def take_means(self) -> list[Tensor]:
        """The means so far, of the lowest levels; they are forgotten."""
        means = self._means
        self._means = [None] * len(means)  # nothing is kept from one batch to the next
        return [mean for mean in means if mean is not None]

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, *self.take_means()], 1)


class _Hook:
    """An object, not a closure, so that a copy of a network passes its maps to its own head."""

    def __init__(self, concat: LevelConcat, index: int) -> None:
        self._concat, self._index = concat, index

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._concat.record(self._index, output)


def find_levels(backbone: Backbone) -> tuple[Level, ...]:
    """The ends of the last stages before the features, as (attribute path, channels).

    A stage is a sequence of blocks whose maps have the same size; its end is the last of its widest
    blocks. Empty for most transformers, whose blocks give no maps, or maps with the channels last,
    and where the head is not one linear layer on one vector.
    """
    if not backbone.has_linear_head:
        return ()
    network = backbone.module
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [
        network.get_submodule(path).register_forward_hook(partial(_record_shape, shapes, path))
        for path in [*(block[-1] for block in backbone.blocks), backbone.head]
    ]
    try:
        run_once(network, backbone.size)
    finally:
        for hook in hooks:
            hook.remove()
    if len(shapes.pop(backbone.head, ())) != 2:  # it takes several vectors a photo
        return ()
    features = getattr(backbone.head_layer, "in_features", 0)
    height, width = backbone.size
    maps = [
        (path, shape)
        for path, shape in shapes.items()
        if len(shape) == 4 and shape[2] * width == shape[3] * height
    ]
    while maps and maps[-1][1][1] == features:  # the stage whose means the features are
        maps.pop()
    widest: dict[tuple[int, ...], Level] = {}
    for path, shape in maps:
        if shape[1] >= widest.get(shape[2:], ("", 0))[1]:
            widest[shape[2:]] = (path, shape[1])
    return tuple(widest.values())[-_MOST_LEVELS:]


def _record_shape(
    shapes: dict[str, tuple[int, ...]], path: str, module: nn.Module, inputs: object, output: object
) -> None:
    if isinstance(output, Tensor):
        shapes[path] = tuple(output.shape)


def with_levels(backbone: Backbone, levels: Iterable[Level]) -> Backbone:
    """``backbone``, changed in place, with a new head that also uses ``levels``, if there are any.

    Raises TrainingError for a level that the network does not have.
    """
    levels = tuple(levels)
    if not levels:
        return backbone
    layer = backbone.head_layer
    concat = LevelConcat(len(levels))
    for index, (path, _) in enumerate(levels):
        try:
            module = backbone.module.get_submodule(path)
        except AttributeError as error:
            raise TrainingError(f"{backbone.name} has no layer {path}.") from error
        module.register_forward_hook(_Hook(concat, index))
    width = layer.in_features + sum(channels for _, channels in levels)
    linear = nn.Linear(width, layer.out_features).to(layer.weight)
    head = nn.Sequential(OrderedDict([("joined", concat), (_LINEAR, linear)]))
    backbone.module.set_submodule(backbone.head, head)
    return replace(backbone, heads=(f"{backbone.head}.{_LINEAR}",), levels=levels)
