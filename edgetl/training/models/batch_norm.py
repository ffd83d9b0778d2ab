"""Batch norm: which layers measure their statistics, and over which processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from edgetl.errors import TrainingError
from edgetl.training.models.backbone import Backbone
from edgetl.training.torch_env.distributed import Processes
from edgetl.training.torch_env.vision_libraries import convert_sync_batchnorm


def batch_norm_layers(network: nn.Module) -> Iterator[nn.Module]:
    """The layers that normalise by the statistics of a batch."""
    return (part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))


def sync_batch_norm(backbone: Backbone, processes: Processes) -> Backbone:
    """Have batch norm measure its statistics over all processes, if there are several.

    Raises TrainingError on CPUs, where it can't, unless the network has none.
    """
    if processes.world_size == 1:
        return backbone
    if processes.device.type != "cuda":
        if next(batch_norm_layers(backbone.module), None) is None:
            return backbone
        raise TrainingError(
            "Batch norm statistics are measured over several processes on GPUs only.",
            "Train in one process, which uses all cores, or add --no-norm-statistics.",
        )
    # torch's own conversion would lose timm's activations. This one still loses the hooks of the
    # layers that it replaces: a head comes to see earlier levels only after it.
    return replace(backbone, module=convert_sync_batchnorm(backbone.module))
