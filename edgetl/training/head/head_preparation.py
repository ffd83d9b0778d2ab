"""A linear head fitted to the features of the frozen backbone.

It is all that is trained in a run without epochs, and what a run with epochs starts from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from edgetl.data.image_folder import ImageFolders
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.settings import SOLVER
from edgetl.training.head.features import Features, compute_features
from edgetl.training.head.label_issues import LabelIssue
from edgetl.training.head.linear_head import Head, fit_head
from edgetl.training.head.resize_choice import choose_resize
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.multi_level import find_levels, with_levels
from edgetl.training.optim.losses import class_weights, photo_losses

_ENOUGH_LOGITS = 1_000_000  # photos × classes from which the softening is fitted
_MAX_SOFTENING = 1000.0  # largest temperature that a head's logits are divided by


@dataclass(frozen=True)
class PreparedHead:
    """A fitted head, and its backbone, which does not hold it yet.

    backbone    with the chosen preprocessing, changed in place to have the levels that it sees
    folders     without the photos that can't be read
    unreadable  these photos → why
    head        its label issues are rows of ``folders.train``
    features    of the training photos, and in a run without epochs of the validation photos
    final       the head of a run without epochs: ``head``, or with ``refit`` one fitted once more,
                to the training and the validation photos; else None
    val_logits  float32 [N, classes] of ``head`` for the validation photos, where ``final`` is one
    """

    backbone: Backbone
    folders: ImageFolders
    unreadable: Mapping[Path, str]
    head: Head
    features: Features
    final: Head | None = None
    val_logits: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class KnownPhotos:
    """What is known of the photos when epochs start.

    folders       without the photos that are known not to be readable
    unreadable    these photos → why
    label_issues  training photos whose labels are likely wrong; their rows in ``folders``
    """

    folders: ImageFolders
    unreadable: Mapping[Path, str] = field(default_factory=dict)
    label_issues: Sequence[LabelIssue] = ()


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


def with_starting_head(
    context: RunContext,
    backbone: Backbone,
    folders: ImageFolders,
    prepared: PreparedHead | None = None,
) -> tuple[Backbone, KnownPhotos]:
    """The backbone to train: with a head that the main process fits, or with a random one.

    prepared  what was fitted to ``backbone`` before, in a single process

    Every process must call it. Raises as ``prepare_head`` does.
    """
    if not (context.settings.warm_head and backbone.has_linear_head):
        if context.settings.warm_head:
            context.listener.note(
                f"The head of {backbone.name} is not one linear layer: "
                "training starts from a random one."
            )
        return backbone, KnownPhotos(folders)
    own: list[Backbone] = []  # of the main process

    def prepare() -> tuple[Any, ...]:
        found = prepared or prepare_head(context, backbone, folders)
        own.append(found.backbone)
        head, unreadable = _less_sure(context, found), dict(found.unreadable)
        return own[0].spec, own[0].levels, head, unreadable

    spec, levels, head, unreadable = context.processes.from_main(prepare)
    backbone = own[0] if own else replace(with_levels(backbone, levels), spec=spec)
    put_into(backbone, head)
    return backbone, KnownPhotos(folders.without(unreadable), unreadable, head.label_issues)


def _less_sure(context: RunContext, prepared: PreparedHead) -> Head:
    """The head that was fitted to the training photos, for epochs to start from.

    Its logits are divided by the temperature that suits smoothed targets best. A more confident
    head has large losses at first, and lowering these would undo pretraining.
    """
    head, samples = prepared.head, prepared.folders.train
    smoothing = context.settings.label_smoothing
    if not smoothing:
        return head
    classes, width = head.weight.shape
    some = samples[:: 1 + len(samples) * classes // _ENOUGH_LOGITS]
    logits = torch.from_numpy(head.logits(prepared.features.of(some)[:, :width]))
    targets = torch.tensor([sample.label for sample in some])
    by_class = class_weights(context.settings, prepared.folders)
    weights = None if by_class is None else torch.tensor(by_class)
    temperature = np.float32(softening(logits, targets, weights, smoothing))
    return replace(head, weight=head.weight / temperature, bias=head.bias / temperature)


def softening(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> float:
    """The temperature, 1 to 1000, at which smoothed targets have the least loss.

    logits   float32 [N, classes], before they are divided by it
    targets  int64 [N]
    weights  float32 [classes], of the classes' losses
    """

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(photo_losses(scaled, targets, weights, smoothing).mean())

    found = minimize_scalar(loss, bounds=(0.0, math.log(_MAX_SOFTENING)), method="bounded")
    return math.exp(found.x)


@torch.no_grad()
def put_into(backbone: Backbone, head: Head) -> None:
    """Copy ``head`` into the head of ``backbone``, which is one linear layer."""
    layer = backbone.head_layer
    layer.weight.copy_(torch.from_numpy(head.weight))
    layer.bias.copy_(torch.from_numpy(head.bias))
