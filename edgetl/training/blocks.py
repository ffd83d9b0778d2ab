"""Cutting any network into its blocks, in forward order: what ``last-blocks`` unfreezes and learning rates fall over."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

Block: TypeAlias = tuple[str, ...]
"""Attribute paths of the modules that make up one block."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find_blocks(network: nn.Module, heads: tuple[str, ...]) -> tuple[Block, ...]:
    """Cut ``network``, less its head layers, into blocks from input to output.

    Plain containers and stages (modules that hold a row of blocks) are opened, a block is kept whole, and a module
    without a weight matrix of its own (a norm, a pooling layer) belongs to the block before it. Modules come in the
    order of their registration, which is the forward order in torchvision's and timm's classifiers.
    """
    blocks: list[list[str]] = []
    leading: list[str] = []
    for path in _pieces(network, "", heads):
        if _weight_layers(network.get_submodule(path)):
            blocks.append([*leading, path])
            leading = []
        elif blocks:
            blocks[-1].append(path)
        else:
            leading.append(path)
    return tuple(tuple(block) for block in blocks)


def _pieces(network: nn.Module, path: str, heads: tuple[str, ...]) -> list[str]:
    """Paths of the modules with parameters or buffers below ``path``, opened as far as ``find_blocks`` says."""
    if path in heads:
        return []
    module = network.get_submodule(path)
    holds_head = any(head.startswith(f"{path}.") for head in heads)
    if path and not holds_head and type(module) not in _CONTAINERS and not _is_stage(module):
        has_state = next(module.parameters(), None) is not None or next(module.buffers(), None) is not None
        return [path] if has_state else []
    children = [f"{path}.{name}" if path else name for name, _ in module.named_children()]
    return [piece for child in children for piece in _pieces(network, child, heads)]


def _is_stage(module: nn.Module) -> bool:
    """Whether it is, or directly holds, a container with two blocks or more."""
    containers = [part for part in (module, *module.children()) if isinstance(part, _CONTAINERS)]
    return any(sum(_is_block(child) for child in container.children()) >= 2 for container in containers)


def _is_block(module: nn.Module) -> bool:
    return not isinstance(module, nn.Sequential) and _weight_layers(module) >= 2


def _weight_layers(module: nn.Module) -> int:
    return sum(any(p.dim() >= 2 for p in part.parameters(recurse=False)) for part in module.modules())
