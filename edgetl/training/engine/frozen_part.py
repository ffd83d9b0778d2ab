"""The frozen part of a network is run once, before the first epoch, where that is possible."""

from __future__ import annotations

from functools import partial

import numpy as np

from edgetl.data.image_folder import ImageFolders
from edgetl.training.config.run_context import RunContext
from edgetl.training.evaluation.validation import Validation
from edgetl.training.input.activations import MOST_VIEWS, keep_activations
from edgetl.training.input.loader import Loader
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.network_split import NetworkSplit, find_split


def with_activations(
    context: RunContext,
    folders: ImageFolders,
    backbone: Backbone,
    loader: Loader,
    validation: Validation,
) -> tuple[Loader, NetworkSplit | None]:
    """A loader of activations of the photos of ``loader``, and the cut that they are taken at.

    ``validation`` then keeps activations, too. Without a frozen part, room, or a place to cut the
    network at, everything stays as it is, and there is no cut.
    """
    settings, processes, network = context.settings, context.processes, backbone.module
    # A GPU runs the frozen part in no time.
    one_cpu = processes.device.type == "cpu" and processes.world_size == 1
    needs_pixels = settings.mixup > 0 or settings.cutmix > 0 or settings.cache == "off"
    if settings.strategy != "last-blocks" or not one_cpu or needs_pixels or settings.compile:
        return loader, None
    split = find_split(backbone, settings.blocks)
    if split is None:
        return loader, None
    network.eval()
    activations = keep_activations(
        loader,
        partial(split.lower, network),
        np.array([sample.label for sample in folders.train], np.int64),
        (min(settings.epochs, MOST_VIEWS), split.width),
        settings.cache,
        context.folder,
        context.listener.progress,
    )
    if activations is None:
        return loader, None
    validation.keep_activations(network, split, context.folder)
    return activations, split
