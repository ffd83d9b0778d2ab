"""The head as one convex problem on the features of the frozen backbone: the whole of one strategy, the start of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from scipy.optimize import minimize_scalar

from edgetl.data.image_folder import Sample
from edgetl.training.config.listener import Listener
from edgetl.training.config.settings import TrainSettings
from edgetl.training.head.feature_cache import cache_folder
from edgetl.training.head.features import Features, extract_features
from edgetl.training.head.label_issues import LabelIssue
from edgetl.training.head.linear_head import Head, fit_head
from edgetl.training.models.backbones import Backbone
from edgetl.training.models.multi_level import own_features, with_levels, without_levels
from edgetl.training.optim.losses import photo_losses
from edgetl.training.torch_env.distributed import Processes

_FEW_LOGITS = 1_000_000  # photos × classes: enough to find one number
_SOFTEST = 1000.0  # largest temperature that a head is divided by


def compute_features(
    backbone: Backbone,
    samples: Sequence[Sample],
    device: torch.device,
    settings: TrainSettings,
    listener: Listener,
    known: Features | None,
    what: str = "Computing features",
) -> Features:
    """``extract_features`` as ``settings`` ask for it, its progress and notes told to ``listener``.

    Of the photos as they are: mirror images and crops cost time and gained nothing; see scripts/experiments.md.
    """

    features = extract_features(
        backbone,
        samples,
        cache=cache_folder(settings.feature_cache),
        device=device,
        threads=settings.workers or None,
        step=what,
        progress=listener.working,
        known=known,
    )
    for sentence in features.notes:
        listener.note(sentence)
    return features


def solve_head(
    backbone: Backbone,
    samples: Sequence[Sample],
    features: Features,
    class_weights: torch.Tensor | None,
    device: torch.device,
    listener: Listener,
) -> tuple[Backbone, Head]:
    """Fit the head to readable training photos and put it into the backbone; see ``with_levels`` for what it may see.

    backbone  with the levels that ``features`` are of → without them where cross-validation has no use for them
    """
    listener.working("Solving the head", 0, 0)
    own = own_features(backbone)
    layer: Any = backbone.module.get_submodule(backbone.head)
    head = fit_head(
        features.of(samples),
        [sample.label for sample in samples],
        int(layer.out_features),
        digests=[sample.digest for sample in samples],
        class_weights=class_weights.tolist() if class_weights is not None else None,
        widths=(own, int(layer.in_features)) if backbone.levels else (),
        device=device,
    )
    if head.weight.shape[1] == own:
        backbone = without_levels(backbone)
    else:
        stages = ", ".join(path for path, _ in backbone.levels)
        listener.note(
            f"The head also sees earlier stages of {backbone.name} ({stages}): cross-validation preferred it."
        )
    put_head(backbone, head)
    return backbone, head


def warm_head(
    backbone: Backbone,
    samples: Sequence[Sample],
    class_weights: torch.Tensor | None,
    processes: Processes,
    settings: TrainSettings,
    listener: Listener,
    known: Features | None,
) -> tuple[Backbone, list[LabelIssue]]:
    """Put a solved head into a backbone that will be trained on; the leading process solves, the others are given it.

    known  of some of the photos, from ``frame``, which also said what the leading process's head may see
    Also what it doubted of ``samples``, by their places in it; nothing in other processes.
    """
    if not backbone.has_linear_head:
        listener.note(f"The head of {backbone.name} is not one linear layer: it is not solved for.")
        return backbone, []
    solved, doubts = None, list[LabelIssue]()
    if processes.is_main:
        features = compute_features(backbone, samples, processes.device, settings, listener, known)
        rows = [
            row for row, sample in enumerate(samples) if sample.path not in features.unreadable
        ]  # a GPU may read more
        samples = [samples[row] for row in rows]
        backbone, head = solve_head(
            backbone, samples, features, class_weights, processes.device, listener
        )
        doubts = [doubt._replace(photo=rows[doubt.photo]) for doubt in head.label_issues]
        if settings.label_smoothing:
            head = _softened(head, features, samples, class_weights, settings.label_smoothing)
            put_head(backbone, head)
        solved = (backbone.levels, head)
    given = processes.all_gather(solved)[0]
    if given is not None and not processes.is_main:
        levels, head = given
        backbone = with_levels(backbone, levels)
        put_head(backbone, head)
    return backbone, doubts


def _softened(
    head: Head,
    features: Features,
    samples: Sequence[Sample],
    class_weights: torch.Tensor | None,
    smoothing: float,
) -> Head:
    """``head``, no surer of the training photos than smoothed targets want it.

    A surer one has large losses to begin with, and what the network knows is undone while it learns to be less sure.
    """
    classes, width = head.weight.shape
    some = samples[:: 1 + len(samples) * classes // _FEW_LOGITS]
    logits = torch.from_numpy(head.logits(features.of(some)[:, :width]))
    targets = torch.tensor([sample.label for sample in some])

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(photo_losses(scaled, targets, class_weights, smoothing).mean())

    found = minimize_scalar(loss, bounds=(0.0, math.log(_SOFTEST)), method="bounded")
    return head.with_temperature(math.exp(found.x))


@torch.no_grad()
def put_head(backbone: Backbone, head: Head) -> None:
    """``head`` into the backbone's linear classifier layer."""
    layer: Any = backbone.module.get_submodule(backbone.head)
    layer.weight.copy_(torch.from_numpy(head.weight))
    layer.bias.copy_(torch.from_numpy(head.bias))
