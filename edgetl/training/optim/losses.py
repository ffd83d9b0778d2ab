"""The loss that a network is trained with: cross-entropy with smoothed targets, photos weighed by their classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def photo_losses(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: float
) -> Tensor:
    """float32 [N]: the loss of each photo, times the weight of its class.

    logits         float32 [N, classes]
    targets        int64 [N], or float32 [N, classes] of photos that are mixed
    class_weights  float32 [classes], or None for 1
    smoothing      share of each target that is spread over all classes, 0..1

    torch's own weights go to what the smoothing gives to each class, too: with 20 times as many photos of one class as
    of another, the rare class would be the best answer for every photo.
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
