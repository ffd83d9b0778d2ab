"""The weights that a run keeps: the best so far, in memory and in the run folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgetl.data.image_folder import ImageFolders
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.environment import package_versions
from edgetl.training.config.run_context import RunContext
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.checkpoint import Trained

_PACKAGES = ("torch", "torchvision", "timm")


@dataclass(frozen=True)
class KeptWeights:
    """Weights, and what they answer.

    trained  a copy on the CPU; None in other processes than the main one
    logits   float32 [N, classes] of the validation photos
    """

    trained: Trained | None
    logits: NDArray[np.float32]


def snapshot(
    context: RunContext,
    folders: ImageFolders,
    backbone: Backbone,
    network: nn.Module,
    metrics: Mapping[str, Any],
) -> Trained:
    """What is saved as a checkpoint: a copy of ``network`` on the CPU, its card and settings.

    network  ``backbone``'s module, or an average of its weights
    metrics  for the card; final ones, or those known so far
    """
    card = ModelCard(
        labels=folders.classes,
        spec=backbone.spec,
        backbone=backbone.name,
        metrics=dict(metrics),
        data={
            "fingerprint": folders.fingerprint,
            "train": len(folders.train),
            "val": len(folders.val),
        },
        versions=package_versions(*_PACKAGES),
    )
    kept = copy.deepcopy(network).to("cpu").eval()
    backbone = replace(backbone, module=kept)
    settings = context.settings.to_dict()
    return Trained(kept, card, settings, backbone.levels, backbone=backbone)
