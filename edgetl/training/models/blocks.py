"""The blocks of a network, in forward order.

``last-blocks`` unfreezes some of them, and the learning rate decays from block to block.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import nn

from edgetl.training.torch_env.torch_flags import one_thread

Block: TypeAlias = tuple[str, ...]
"""Attribute paths of the modules that make up one block."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find_blocks(
    network: nn.Module, heads: tuple[str, ...], size: tuple[int, int]
) -> tuple[Block, ...]:
    """Divide ``network`` without its head layers into blocks, from input to output.

    size  (height, width) of its input

    Plain containers and stages (modules that hold a sequence of blocks) are divided further, a
    block is not, and a module without a weight matrix of its own (a norm, a pooling layer) belongs
    to the block before it.
    """
    blocks: list[list[str]] = []
    leading: list[str] = []
    for path in _in_forward_order(network, _pieces(network, "", heads), size):
        if _weight_layers(network.get_submodule(path)):
            blocks.append([*leading, path])
            leading = []
        elif blocks:
            blocks[-1].append(path)
        else:
            leading.append(path)
    return tuple(tuple(block) for block in blocks)


@torch.no_grad()
def run_once(network: nn.Module, size: tuple[int, int]) -> None:
    """Call ``network`` in eval mode with one black photo of ``size``, for the hooks set on it.

    Raises what the network raises for a size that it does not accept.
    """
    training = network.training
    device = next(network.parameters()).device
    try:
        with one_thread():  # for one photo, others cost more than they save
            network.eval()(torch.zeros(1, 3, *size, device=device))
    finally:
        network.train(training)


def _in_forward_order(network: nn.Module, paths: list[str], size: tuple[int, int]) -> list[str]:
    """Sort ``paths`` in the order in which the modules are called.

    A module that is not called follows the one registered before it. Nearly all networks register
    their modules in this order, but Twins registers its position encodings last.
    """
    called: list[str] = []
    hooks = [
        network.get_submodule(path).register_forward_pre_hook(
            lambda *_, path=path: called.append(path)
        )
        for path in paths
    ]
    try:
        run_once(network, size)
    finally:
        for hook in hooks:
            hook.remove()
    first = {path: place for place, path in reversed(list(enumerate(called)))}
    places, place = [], -1
    for path in paths:
        place = first.get(path, place)
        places.append(place)
    return [path for _, path in sorted(zip(places, paths, strict=True), key=lambda item: item[0])]


def _pieces(network: nn.Module, path: str, heads: tuple[str, ...]) -> list[str]:
    """Paths of the modules below ``path`` that have parameters or buffers; see ``find_blocks``."""
    if path in heads:
        return []
    module = network.get_submodule(path)
    holds_head = any(head.startswith(f"{path}.") for head in heads)
    if path and not holds_head and type(module) not in _CONTAINERS and not _is_stage(module):
        return [path] if [*module.parameters(), *module.buffers()] else []
    children = [f"{path}.{name}" if path else name for name, _ in module.named_children()]
    return [piece for child in children for piece in _pieces(network, child, heads)]


def _is_stage(module: nn.Module) -> bool:
    """Whether it is, or directly holds, a container of at least two blocks."""
    containers = [part for part in (module, *module.children()) if isinstance(part, _CONTAINERS)]
    return any(
        sum(_is_block(child) for child in container.children()) >= 2 for container in containers
    )


def _is_block(module: nn.Module) -> bool:
    return not isinstance(module, nn.Sequential) and _weight_layers(module) >= 2


def _weight_layers(module: nn.Module) -> int:
    return sum(
        any(p.dim() >= 2 for p in part.parameters(recurse=False)) for part in module.modules()
    )
