"""The training loss: cross-entropy with smoothed targets, photos weighted by their classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgetl.data.image_folder import ImageFolders
from edgetl.training.config.settings import TrainSettings


def class_weights(settings: TrainSettings, folders: ImageFolders) -> list[float] | None:
    """[classes], with a mean of 1 over the training photos; None without --class-weights."""
    if not settings.class_weights:
        return None
    counts = torch.tensor(folders.train_counts, dtype=torch.float32)
    weights: list[float] = (counts.sum() / (len(counts) * counts)).tolist()
    return weights


def photo_losses(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: float
) -> Tensor:
    """float32 [N]: the loss of each photo, times the weight of its class.

    logits         float32 [N, classes]
    targets        int64 [N], or float32 [N, classes] for mixed photos
    class_weights  float32 [classes], or None for 1
    smoothing      share of each target spread over all classes, 0..1

    torch's own class weights would also weight what smoothing gives to the other classes: with
    20 times as many photos of one class as of another, the rare class would be the best answer for
    every photo.
    """
    if class_weights is None:
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    shares = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).float()
    weighted = shares * class_weights
    weights = weighted.sum(1)
    losses = F.cross_entropy(
        logits, weighted / weights[:, None], reduction="none", label_smoothing=smoothing
    )
    return weights * losses
