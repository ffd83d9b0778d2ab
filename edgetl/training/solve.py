"""The head as one convex problem on the features of the frozen backbone: the whole of one strategy, the start of others."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgetl.training.backbones import Backbone
from edgetl.training.dataset import Sample
from edgetl.training.distributed import Processes
from edgetl.training.feature_cache import cache_folder
from edgetl.training.features import Features, extract_features
from edgetl.training.head import Head, fit_head
from edgetl.training.progress import Listener
from edgetl.training.settings import TrainSettings

SOLVER_VIEWS = ("plain",)  # mirror images and crops cost time and gained nothing; see scripts/experiments.md
START_VIEWS = ("plain",)


def compute_features(
    backbone: Backbone,
    samples: Sequence[Sample],
    views: Sequence[str],
    device: torch.device,
    settings: TrainSettings,
    listener: Listener,
) -> Features:
    """``extract_features`` as ``settings`` ask for it, its progress and notes told to ``listener``."""

    def progress(done: int, total: int) -> None:
        listener.working("Computing features", done, total)

    features = extract_features(
        backbone,
        samples,
        views=views,
        cache=cache_folder(settings.feature_cache),
        device=device,
        threads=settings.workers or None,
        progress=progress,
    )
    for sentence in features.notes:
        listener.note(sentence)
    return features


def solve_head(
    backbone: Backbone, samples: Sequence[Sample], features: Features, class_weights: torch.Tensor | None, device: torch.device
) -> Head:
    """Fit the head to readable training photos and put it into the backbone."""
    head = fit_head(
        features.of(samples),
        [sample.label for sample in samples],
        int(backbone.module.get_submodule(backbone.head).weight.shape[0]),  # type: ignore[index]
        digests=[sample.digest for sample in samples],
        class_weights=class_weights.tolist() if class_weights is not None else None,
        device=device,
    )
    put_head(backbone, head.weight, head.bias)
    return head


def warm_head(
    backbone: Backbone,
    samples: Sequence[Sample],
    class_weights: torch.Tensor | None,
    processes: Processes,
    settings: TrainSettings,
    listener: Listener,
) -> None:
    """Put a solved head into a backbone that will be trained on; the leading process solves, the others are given it."""
    if not backbone.has_linear_head:
        listener.note(f"The head of {backbone.name} is not one linear layer: it begins random.")
        return
    solved = None
    if processes.leads:
        features = compute_features(backbone, samples, START_VIEWS, processes.device, settings, listener)
        head = solve_head(backbone, samples, features, class_weights, processes.device)
        solved = (head.weight, head.bias)
    given = processes.gather(solved)[0]
    if given is not None:
        put_head(backbone, *given)


@torch.no_grad()
def put_head(backbone: Backbone, weight: object, bias: object) -> None:
    """float32 [classes, features] and [classes] into the backbone's linear classifier layer."""
    layer = backbone.module.get_submodule(backbone.head)
    layer.weight.copy_(torch.as_tensor(weight))  # type: ignore[operator]
    layer.bias.copy_(torch.as_tensor(bias))  # type: ignore[operator]
