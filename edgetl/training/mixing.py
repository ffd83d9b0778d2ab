"""Mixup and cutmix: batches in which each photo is blended with another, and so are the targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from edgetl.training.settings import TrainSettings


class Mixing:
    """torchvision's mixup, cutmix, or one of them at random for each batch; nothing if both are off.

    Draws from torch's global generator. Photos are mixed within one process's share of a batch.
    """

    def __init__(self, settings: TrainSettings, classes: int) -> None:
        self._choices: list[Any] = []
        if settings.mixup:
            self._choices.append(v2.MixUp(alpha=settings.mixup, num_classes=classes))
        if settings.cutmix:
            self._choices.append(v2.CutMix(alpha=settings.cutmix, num_classes=classes))

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(float32 [N, 3, h, w], int64 [N]) → the mixed ones; targets become float32 [N, classes] if anything mixes."""
        if not self._choices:
            return images, labels
        chosen = self._choices[int(torch.randint(len(self._choices), ()))]
        mixed, targets = chosen(images, labels)
        return mixed, targets
