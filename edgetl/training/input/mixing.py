"""Mixup and cutmix: each photo of a batch is blended with another one, and so are their targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgetl.training.config.settings import TrainSettings
from edgetl.training.input.sampler import BatchShard
from edgetl.training.torch_env.randomness import MIXING, torch_seed
from edgetl.training.torch_env.vision_libraries import v2


class Mixing:
    """torchvision's mixup, cutmix, or one of both at random for each batch; nothing if both off.

    Each photo is mixed with the one before it. A process therefore needs one photo before its own
    (``BatchShard.borrowed``) to get what a single process would make of the whole batch; the random
    numbers of a batch are the same in all processes.
    """

    def __init__(self, settings: TrainSettings, classes: int) -> None:
        self._seed = settings.seed
        self._transforms: list[Any] = []
        if settings.mixup:
            self._transforms.append(v2.MixUp(alpha=settings.mixup, num_classes=classes))
        if settings.cutmix:
            self._transforms.append(v2.CutMix(alpha=settings.cutmix, num_classes=classes))

    def __call__(self, images: Tensor, labels: Tensor, shard: BatchShard) -> tuple[Tensor, Tensor]:
        """Mix the photos of ``shard``, and leave out the borrowed ones.

        images   float32 [N, 3, h, w]
        labels   int64 [N]
        → (images, targets); targets are float32 [N, classes], or the labels if nothing is mixed
        """
        if not self._transforms:
            return images, labels
        with torch.random.fork_rng(devices=[]):
            seed = torch_seed(self._seed, MIXING, shard.epoch, shard.batch)
            torch.default_generator.manual_seed(seed)
            transform = self._transforms[int(torch.randint(len(self._transforms), ()))]
            images, targets = transform(images, labels)
        # On a GPU, mixup leaves another memory layout than cutmix and plain batches have.
        images = images[shard.borrowed :].contiguous(memory_format=torch.channels_last)
        return images, targets[shard.borrowed :]
