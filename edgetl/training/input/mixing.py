"""Mixup and cutmix: batches in which each photo is blended with another, and so are the targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from edgetl.training.config.settings import TrainSettings
from edgetl.training.input.sampler import Share
from edgetl.training.torch_env.randomness import MIXING, torch_seed


class Mixing:
    """torchvision's mixup, cutmix, or one of them at random for each batch; nothing if both are off.

    Each photo is mixed with the one before it, so a process needs one photo more than its own (``Share.borrowed``) to do
    what one process does to the whole batch; what is random about a batch is the same in all of them.
    """

    def __init__(self, settings: TrainSettings, classes: int) -> None:
        self._seed = settings.seed
        self._choices: list[Any] = []
        if settings.mixup:
            self._choices.append(v2.MixUp(alpha=settings.mixup, num_classes=classes))
        if settings.cutmix:
            self._choices.append(v2.CutMix(alpha=settings.cutmix, num_classes=classes))

    def __call__(self, images: Tensor, labels: Tensor, share: Share) -> tuple[Tensor, Tensor]:
        """(float32 [N, 3, h, w], int64 [N]) → the mixed ones without the borrowed; targets become float32 [N, classes]
        if anything mixes."""
        if not self._choices:
            return images, labels
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                torch_seed(self._seed, MIXING, share.epoch, share.batch)
            )
            chosen = self._choices[int(torch.randint(len(self._choices), ()))]
            mixed, targets = chosen(images, labels)
        # On a GPU, mixup's neighbours are rolled into another layout of memory than cutmix and plain batches have.
        return mixed[share.borrowed :].contiguous(memory_format=torch.channels_last), targets[
            share.borrowed :
        ]
