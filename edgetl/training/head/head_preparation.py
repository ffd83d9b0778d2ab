"""A linear head fitted to the features of the frozen backbone.

It is all that is trained in a run without epochs, and what a run with epochs starts from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.settings import SOLVER
from edgetl.training.head.features import Features, compute_features
from edgetl.training.head.linear_head import Head, fit_head
from edgetl.training.head.resize_choice import choose_resize
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.multi_level import find_levels, with_levels
from edgetl.training.optim.losses import class_weights, photo_losses

_ENOUGH_LOGITS = 1_000_000  # photos × classes from which the softening is fitted
_MAX_SOFTENING = 1000.0  # largest temperature that a head's logits are divided by


@dataclass(frozen=True)
class PreparedHead:
    """A fitted head, and its backbone.

    backbone    with the chosen preprocessing, changed in place to have the levels that the head
                sees; in a run with epochs, it holds the head
    folders     without the photos that can't be read
    unreadable  these photos → why
    head        its label issues are rows of ``folders.train``
    features    of the training photos, and in a run without epochs of the validation photos; None
                in other processes than the main one
    final       the head of a run without epochs: ``head``, or with ``refit`` one fitted once more,
                to the training and the validation photos; else None
    val_logits  float32 [N, classes] of ``head`` for the validation photos, where ``final`` is one
    """

    backbone: Backbone
    folders: ImageFolders
    unreadable: Mapping[Path, str]
    head: Head
    features: Features | None
    final: Head | None = None
    val_logits: NDArray[np.float32] | None = None


def prepare_head(context: RunContext, backbone: Backbone, folders: ImageFolders) -> PreparedHead:
    """Choose the resize, compute features, leave out unreadable photos, fit the head.

    Raises DataError for photos that must be readable; see ``ImageFolders.without``. TrainingError
    if the backbone's head is not one linear layer.
    """
    settings, listener = context.settings, context.listener
    trains_head_only = settings.optimizer == SOLVER
    levels = find_levels(backbone)
    backbone, known = choose_resize(context, backbone, levels, folders)
    samples = folders.train + folders.val if trains_head_only else folders.train
    features = compute_features(context, backbone, samples, known=known, levels=levels)
    for sentence in features.notes:
        listener.note(sentence)
    readable = folders.without(features.unreadable)
    if trains_head_only:
        listener.photos_read(readable)

    listener.progress("Solving the head", 0, 0)
    layer = backbone.head_layer
    own = int(layer.in_features)
    fit = partial(
        fit_head,
        classes=int(layer.out_features),
        class_weights=class_weights(settings, readable),
        device=context.device,
    )
    head = fit(
        features.of(readable.train),
        [sample.label for sample in readable.train],
        digests=[sample.digest for sample in readable.train],
        widths=(own, own + sum(channels for _, channels in levels)) if levels else (),
    )
    if head.weight.shape[1] > own:
        backbone = with_levels(backbone, levels)
        stages = ", ".join(path for path, _ in levels)
        listener.note(
            f"The head also sees earlier stages of {backbone.name} ({stages}): "
            "cross-validation preferred it."
        )
    prepared = PreparedHead(backbone, readable, features.unreadable, head, features)
    if trains_head_only:
        width, final = head.weight.shape[1], head
        val_logits = head.logits(np.ascontiguousarray(features.of(readable.val)[:, :width]))
        if settings.refit:
            every = readable.train + readable.val
            labels = [sample.label for sample in every]
            final = fit(features.of(every)[:, :width], labels, recipe=head.recipe, start=head)
        prepared = replace(prepared, final=final, val_logits=val_logits)
    return prepared


def prepare_shared_head(
    context: RunContext, backbone: Backbone, folders: ImageFolders
) -> PreparedHead:
    """``prepare_head`` in the main process, its result in all. Every process must call it."""
    own: list[PreparedHead] = []  # of the main process

    def prepare() -> tuple[Any, ...]:
        own.append(starting_head(context, prepare_head(context, backbone, folders)))
        chosen, head = own[0].backbone, own[0].head
        return chosen.spec, chosen.levels, head, dict(own[0].unreadable)

    spec, levels, head, unreadable = context.processes.from_main(prepare)
    if own:
        return own[0]
    backbone = replace(with_levels(backbone, levels), spec=spec)
    put_into(backbone, head)
    return PreparedHead(backbone, folders.without(unreadable), unreadable, head, None)


def starting_head(context: RunContext, prepared: PreparedHead) -> PreparedHead:
    """What a run with epochs starts from: the head fitted to the training photos, less sure.

    Its logits are divided by the temperature that suits smoothed targets best. A more confident
    head has large losses at first, and lowering these would undo pretraining. In the main process.
    """
    assert prepared.features is not None
    head, folders, smoothing = prepared.head, prepared.folders, context.settings.label_smoothing
    if smoothing:
        weights = class_weights(context.settings, folders)
        head = _soften(head, prepared.features, folders.train, weights, smoothing)
    put_into(prepared.backbone, head)
    return replace(prepared, head=head)


def _soften(
    head: Head,
    features: Features,
    samples: Sequence[Sample],
    class_weights: Sequence[float] | None,
    smoothing: float,
) -> Head:
    classes, width = head.weight.shape
    some = samples[:: 1 + len(samples) * classes // _ENOUGH_LOGITS]
    logits = torch.from_numpy(head.logits(features.of(some)[:, :width]))
    targets = torch.tensor([sample.label for sample in some])
    weights = None if class_weights is None else torch.tensor(class_weights)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(photo_losses(scaled, targets, weights, smoothing).mean())

    found = minimize_scalar(loss, bounds=(0.0, math.log(_MAX_SOFTENING)), method="bounded")
    temperature = np.float32(math.exp(found.x))
    return replace(head, weight=head.weight / temperature, bias=head.bias / temperature)


@torch.no_grad()
def put_into(backbone: Backbone, head: Head) -> None:
    """Copy ``head`` into the head of ``backbone``, which is one linear layer."""
    layer = backbone.head_layer
    layer.weight.copy_(torch.from_numpy(head.weight))
    layer.bias.copy_(torch.from_numpy(head.bias))
