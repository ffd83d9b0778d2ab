"""A network cut in two: a frozen lower part, and the part above it, which is trained.

What the lower part gives for a photo never changes, so it can be computed once and kept.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.training.models.backbone import Backbone
from edgetl.training.models.multi_level import LevelConcat
from edgetl.training.torch_env.torch_flags import full_precision

_TOLERANCE = 1e-4  # largest difference of a logit, as a share of the largest one


@dataclass(frozen=True)
class NetworkSplit:
    """Where a network is cut, and what crosses the cut.

    A photo's activation is one row: what the first trained module takes, channels last, and then
    the means of the maps below the cut that a multi-level head uses.

    first   attribute path of the first trained module
    below   paths of the outermost modules that are called before it
    shape   of what it takes from one photo: (c, h, w), or (tokens, c)
    levels  channels of the levels below the cut
    """

    first: str
    below: frozenset[str]
    shape: tuple[int, ...]
    levels: tuple[int, ...]

    @property
    def width(self) -> int:
        """Values in an activation."""
        return math.prod(self.shape) + sum(self.levels)

    def lower(self, network: nn.Module, images: Tensor) -> Tensor:
        """Images float32 [N, 3, h, w] → activations float32 [N, width]."""
        taken = _input_of(network, self.first, images)
        concat = _concat_of(network)
        means = concat.take_means() if concat else []
        # In channels-last memory, a view.
        return torch.cat([taken.movedim(1, -1).flatten(1), *means[: len(self.levels)]], 1)

    def upper(self, network: nn.Module, activations: Tensor) -> Any:
        """Activations float32 [N, width] → what ``network`` gives for their images."""
        channels, *places = self.shape
        taken, *means = activations.split([math.prod(self.shape), *self.levels], 1)
        taken = taken.reshape(len(taken), *places, channels).movedim(-1, 1)
        concat = _concat_of(network)
        for index, mean in enumerate(means):
            assert concat is not None
            concat.set_mean(index, mean)
        # What the network does between modules, as a ReLU, must not be done to it again.
        first = network.get_submodule(self.first)
        hook = first.register_forward_pre_hook(lambda *_: (taken,))
        try:
            return _without(network, self.below)(taken)
        finally:
            hook.remove()


class UpperNetwork(nn.Module):
    """The upper part of a network as it is at each call: activations [N, width] → logits."""

    def __init__(self, network: nn.Module, split: NetworkSplit) -> None:
        super().__init__()
        self._network, self._split = network, split

    def forward(self, activations: Tensor) -> Any:
        return self._split.upper(self._network, activations)


@torch.no_grad()
def find_split(backbone: Backbone, blocks: int) -> NetworkSplit | None:
    """The cut below the last ``blocks`` blocks.

    None if there is nothing below it, or if the two parts together are not the network, as where
    more than one tensor crosses the cut.
    """
    if not 0 < blocks < len(backbone.blocks):
        return None
    network = backbone.module
    images = torch.rand(2, 3, *backbone.size, generator=torch.Generator().manual_seed(0))
    images = images.to(next(network.parameters()).device, memory_format=torch.channels_last)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with full_precision():
            split = _cut(network, backbone.blocks[-blocks][0], images)
            expected = network(images)
            found = split.upper(network, split.lower(network, images))
        limit = _TOLERANCE * float(expected.abs().max())
        return split if float((found - expected).abs().max()) <= limit else None
    except Exception:  # of many types, from networks that can't be called in two parts
        return None
    finally:
        for module, mode in modes.items():
            module.training = mode


def _cut(network: nn.Module, first: str, images: Tensor) -> NetworkSplit:
    called = set[str]()
    hooks = [
        module.register_forward_hook(lambda *_, path=path: called.add(path))
        for path, module in network.named_modules()
    ]
    try:
        taken = _input_of(network, first, images)
    finally:
        for hook in hooks:
            hook.remove()
    below = (path for path in called if not any(path.startswith(f"{it}.") for it in called))
    concat = _concat_of(network)
    means = concat.take_means() if concat else []
    levels = tuple(mean.shape[1] for mean in means)
    return NetworkSplit(first, frozenset(below), tuple(taken.shape[1:]), levels)


class _ReachedError(Exception):
    """The network has come to the module where it is cut."""


def _input_of(network: nn.Module, first: str, images: Tensor) -> Tensor:
    """What module ``first`` takes, which is called only up to there."""
    taken: list[Any] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        taken.extend(inputs)
        raise _ReachedError

    hook = network.get_submodule(first).register_forward_pre_hook(stop)
    try:
        network(images)
    except _ReachedError:
        pass
    finally:
        hook.remove()
    (only,) = taken
    assert isinstance(only, Tensor)
    return only


def _without(module: nn.Module, below: frozenset[str], path: str = "") -> nn.Module:
    """``module`` with the same submodules, but those ``below`` replaced by nothing."""
    view = copy.copy(module)
    view._modules = {}
    for name, child in module._modules.items():
        place = f"{path}{name}"
        if place in below:
            child = nn.Identity()
        elif child is not None and any(other.startswith(f"{place}.") for other in below):
            child = _without(child, below, f"{place}.")
        view._modules[name] = child
    return view


def _concat_of(network: nn.Module) -> LevelConcat | None:
    return next((part for part in network.modules() if isinstance(part, LevelConcat)), None)
