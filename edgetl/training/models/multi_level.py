"""A head that also sees earlier levels of a network: the means of the maps that earlier stages end in.

What the last layer says is made for the classes that a backbone was trained on; what earlier stages see of shape and
texture is not, and helps a head on photos that are unlike them (Evci et al., Head2Toe, 2022). The network stays as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.errors import TrainingError
from edgetl.training.models.backbones import Backbone, Level

_MOST = 3  # the last ones: more gained nothing
_LINEAR = "linear"


class Joined(nn.Module):
    """Features float32 [N, f] → [N, f + c₁ + c₂ …]: followed by the means of the maps that hooks saw on the way."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._means: list[Tensor | None] = [None] * count

    def see(self, index: int, feature_map: Tensor) -> None:
        """A map, float32 [N, c, h, w]."""
        self._means[index] = F.adaptive_avg_pool2d(feature_map, 1).flatten(1)

    def forward(self, features: Tensor) -> Tensor:
        means, self._means = (
            self._means,
            [None] * len(self._means),
        )  # nothing is kept from one batch to the next
        return torch.cat([features, *(mean for mean in means if mean is not None)], 1)


class _Hook:
    """An object, not a closure: a copy of a network must show its maps to the copy's own head."""

    def __init__(self, joined: Joined, index: int) -> None:
        self._joined, self._index = joined, index

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._joined.see(self._index, output)


@torch.no_grad()
def find_levels(backbone: Backbone) -> tuple[Level, ...]:
    """Where the last stages before the features end: (attribute path, channels), in forward order.

    A stage is a row of blocks whose maps are of one size; it ends in the last of the widest. None for most transformers,
    whose blocks give no maps, or maps with the channels last, and none where the head is not one linear layer on one vector.
    """
    if not backbone.has_linear_head:
        return ()
    shapes: dict[str, tuple[int, ...]] = {}
    last = [block[-1] for block in backbone.blocks]
    hooks = [
        backbone.module.get_submodule(path).register_forward_hook(partial(_record, shapes, path))
        for path in last
    ]
    hooks.append(
        backbone.module.get_submodule(backbone.head).register_forward_hook(
            partial(_record, shapes, backbone.head)
        )
    )
    height, width = backbone.size
    training = backbone.module.training
    try:
        backbone.module.eval()(
            torch.zeros(1, 3, height, width, device=next(backbone.module.parameters()).device)
        )
    finally:
        for hook in hooks:
            hook.remove()
        backbone.module.train(training)
    if (
        len(shapes.pop(backbone.head, ())) != 2
    ):  # it takes several vectors a photo, whose mean comes after it
        return ()
    features = getattr(backbone.module.get_submodule(backbone.head), "in_features", 0)
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
    return tuple(widest.values())[-_MOST:]


def _record(
    shapes: dict[str, tuple[int, ...]], path: str, module: nn.Module, inputs: object, output: object
) -> None:
    if isinstance(output, Tensor):
        shapes[path] = tuple(output.shape)


def with_levels(backbone: Backbone, levels: Iterable[Level]) -> Backbone:
    """``backbone``, changed in place, with a fresh head that also sees ``levels``. No levels: as it is.

    Raises TrainingError for a level that the network does not have.
    """
    levels = tuple(levels)
    if not levels:
        return backbone
    layer: Any = backbone.module.get_submodule(backbone.head)
    joined = Joined(len(levels))
    for index, (path, _) in enumerate(levels):
        try:
            module = backbone.module.get_submodule(path)
        except AttributeError as error:
            raise TrainingError(f"{backbone.name} has no layer {path}.") from error
        module.register_forward_hook(_Hook(joined, index))
    linear = nn.Linear(
        layer.in_features + sum(channels for _, channels in levels), layer.out_features
    ).to(layer.weight)
    backbone.module.set_submodule(
        backbone.head, nn.Sequential(OrderedDict([("joined", joined), (_LINEAR, linear)]))
    )
    return replace(backbone, heads=(f"{backbone.head}.{_LINEAR}",), levels=levels)


def without_levels(backbone: Backbone) -> Backbone:
    """What ``with_levels`` did undone, but for a fresh head."""
    if not backbone.levels:
        return backbone
    layer: Any = backbone.module.get_submodule(backbone.head)
    for path, _ in backbone.levels:
        hooks = backbone.module.get_submodule(path)._forward_hooks
        for key in [key for key, hook in hooks.items() if isinstance(hook, _Hook)]:
            del hooks[key]
    head = backbone.head.removesuffix(f".{_LINEAR}")
    backbone.module.set_submodule(
        head, nn.Linear(own_features(backbone), layer.out_features).to(layer.weight)
    )
    return replace(backbone, heads=(head,), levels=())


def own_features(backbone: Backbone) -> int:
    """How many of the head's inputs are the backbone's own features; they come first."""
    layer: Any = backbone.module.get_submodule(backbone.head)
    return int(layer.in_features) - sum(channels for _, channels in backbone.levels)
