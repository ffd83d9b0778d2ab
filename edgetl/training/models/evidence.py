"""Which parts of a photo speak for each class: the class activation maps of a network.

Where the features are the means of a last map over its places, and the logits are linear in the
features, a logit without its bias is a sum over places, and so the map is exact (Zhou et al.,
Learning deep features for discriminative localization, 2016). Maps of earlier levels, which are
finer, are summed up over the places of the coarsest one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from edgetl.training.models.backbone import Level
from edgetl.training.torch_env.torch_flags import full_precision, one_thread

Result = TypeVar("Result")

_TOLERANCE = 1e-4  # largest difference of a mean or a sum, as a share of the largest one


@dataclass(frozen=True)
class FeatureMaps:
    """The maps whose means are the input of the classifier layer.

    head           attribute path of the classifier layer
    last           path of the module that gives the last map
    channels_last  whether that is float32 [N, h, w, c], not [N, c, h, w]
    relu           whether the network takes a ReLU of it, outside of its modules
    levels         paths of the modules that give the other maps, [N, c, h, w]
    """

    head: str
    last: str
    channels_last: bool
    relu: bool
    levels: tuple[str, ...]


class EvidenceNetwork(nn.Module):
    """normalized float32 [N, 3, h, w] → logits [N, classes] and evidence [N, classes, y, x].

    The sum of a class's evidence over all places y, x is its logit without the bias.
    """

    def __init__(self, network: nn.Module, maps: FeatureMaps) -> None:
        super().__init__()
        self.network, self._maps = network, maps

    def forward(self, normalized: Tensor) -> tuple[Tensor, Tensor]:
        return call_with_evidence(self.network, self.network, self._maps, normalized)


def call_with_evidence(
    call: Callable[[Tensor], Result], network: nn.Module, maps: FeatureMaps, images: Tensor
) -> tuple[Result, Tensor]:
    """(what ``call`` of the images returns, the evidence [N, classes, y, x]).

    call  calls ``network``, once
    """
    kept: dict[str, Tensor] = {}

    def keep(path: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept[path] = output

    paths = maps.last, *maps.levels
    result = _with_hooks(call, network, dict.fromkeys(paths, keep), images)
    last, *levels = (kept[path] for path in paths)
    last = _as_pooled(last, maps.channels_last, maps.relu)
    shares = torch.cat([_shares(one, last.shape[2:]) for one in (last, *levels)], 1)
    head: Any = network.get_submodule(maps.head)
    return result, nn.functional.conv2d(shares, head.weight[:, :, None, None])


def _with_hooks(
    call: Callable[[Tensor], Result], network: nn.Module, hooks: Mapping[str, Any], images: Tensor
) -> Result:
    """``call`` with hooks, path of a module → function of the path, and of what it gave."""
    handles = [
        network.get_submodule(path).register_forward_hook(partial(hook, path))
        for path, hook in hooks.items()
    ]
    try:
        return call(images)
    finally:
        for handle in handles:
            handle.remove()


def _as_pooled(output: Tensor, channels_last: bool, relu: bool) -> Tensor:
    output = output.permute(0, 3, 1, 2) if channels_last else output
    return output.relu() if relu else output


def _shares(feature_map: Tensor, size: Sequence[int]) -> Tensor:
    """A map [N, c, H, W] → what each of ``size`` places adds to its mean, [N, c, h, w].

    A value whose area lies in several places is divided between them.
    """
    down, across = (
        _area_weights(int(fine), int(coarse)).to(feature_map)
        for fine, coarse in zip(feature_map.shape[2:], size, strict=True)
    )
    return down @ feature_map.contiguous() @ across.T


def _area_weights(fine: int, coarse: int) -> Tensor:
    """[coarse, fine]: which share of the whole a fine and a coarse part of it have in common."""
    starts = torch.arange(fine, dtype=torch.float64) / fine
    edges = torch.arange(coarse + 1, dtype=torch.float64)[:, None] / coarse
    begins, ends = edges[:-1].maximum(starts), edges[1:].minimum(starts + 1 / fine)
    return (ends - begins).clamp(min=0)


@torch.no_grad()
def find_maps(
    network: nn.Module, levels: Sequence[Level], size: tuple[int, int]
) -> FeatureMaps | None:
    """The maps of a network in eval mode; None if its logits are not sums over places.

    levels  those of its head
    size    (height, width) of its input

    Not the name of an architecture decides, but whether the sums are right on noise.
    """
    if isinstance(network, torch.jit.ScriptModule):  # takes no hooks
        return None
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    images = images.to(next(network.parameters()).device)
    of_levels = sum(channels for _, channels in levels)
    with one_thread(), full_precision():
        call = _Call(
            layer.in_features - of_levels
            for layer in network.modules()
            if isinstance(layer, nn.Linear)
        )
        names = [path for path, _ in network.named_modules()]
        logits = _with_hooks(network, network, dict.fromkeys(names, call.record), images)
        for head, features in call.linear_layers(logits):
            last = call.last_map(features[:, : features.shape[1] - of_levels])
            if last is None:
                continue
            maps = FeatureMaps(head, *last, tuple(path for path, _ in levels))
            _, evidence = EvidenceNetwork(network, maps)(images)
            layer: Any = network.get_submodule(head)
            if _is_close(evidence.sum((2, 3)) + layer.bias, logits):
                return maps
    return None


class _Call:
    """What the modules of a network took and gave in one call.

    widths  numbers of channels of the maps that are kept: all maps would take a lot of memory
    """

    def __init__(self, widths: Iterable[int]) -> None:
        self._widths = frozenset(widths)
        self._linear: list[tuple[str, Tensor, Tensor]] = []
        self._maps: list[tuple[str, Tensor]] = []

    def record(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, nn.Linear) and module.bias is not None and inputs[0].ndim == 2:
            self._linear.append((path, inputs[0], output))
        elif (
            isinstance(output, Tensor)
            and output.ndim == 4
            and not self._widths.isdisjoint((output.shape[1], output.shape[3]))
        ):
            self._maps.append((path, output))

    def linear_layers(self, logits: Tensor) -> list[tuple[str, Tensor]]:
        """(path, what it took, [1, features]) of the layers that gave ``logits``."""
        return [(path, taken) for path, taken, given in self._linear if torch.equal(given, logits)]

    def last_map(self, features: Tensor) -> tuple[str, bool, bool] | None:
        """(path, channels last, ReLU) of the last module whose maps have these means."""
        for path, output in reversed(self._maps):
            for channels_last, relu in product((False, True), repeat=2):
                maps = _as_pooled(output, channels_last, relu)
                if (
                    maps.shape[1] == features.shape[1]
                    and maps[0, 0].numel() > 1  # else they are pooled already
                    and _is_close(maps.mean((2, 3)), features)
                ):
                    return path, channels_last, relu
        return None


def _is_close(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).abs().max()) <= _TOLERANCE * float(expected.abs().max())
