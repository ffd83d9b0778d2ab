"""Batch norm: which layers measure their statistics, and over which processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from edgetl.errors import TrainingError
from edgetl.training.models.backbones import Backbone
from edgetl.training.models.multi_level import with_levels, without_levels
from edgetl.training.torch_env.vision_libraries import convert_sync_batchnorm


def batch_norm_layers(network: nn.Module) -> Iterator[nn.Module]:
    """The layers that normalise by the statistics of a batch."""
    return (part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))


def sync_batch_norm(backbone: Backbone, device: torch.device) -> Backbone:
    """Have batch norm measure its statistics over all processes.

    Raises TrainingError on CPUs, where it can't, unless the network has none.
    """
    if device.type != "cuda":
        if next(batch_norm_layers(backbone.module), None) is None:
            return backbone
        raise TrainingError(
            "Batch norm statistics are measured over several processes on GPUs only.",
            "Train in one process, which uses all cores, or add --no-norm-statistics.",
        )
    # torch's own conversion would lose timm's activations. This one still loses the hooks of the
    # layers that it replaces, through which a head sees earlier levels.
    levels, bare = backbone.levels, without_levels(backbone)
    module = convert_sync_batchnorm(bare.module)
    return with_levels(replace(bare, module=module), levels)
