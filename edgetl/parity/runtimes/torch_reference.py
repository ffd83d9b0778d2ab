"""The trained network itself, with which every runtime is compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgetl.parity.check_photos import Photo
from edgetl.parity.stages import Stages
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.resize import normalize, resize_image


class TorchReference:
    """Decode, Pillow's resize, normalize, network, softmax(logits / temperature).

    network  in eval mode, float32, on the CPU
    """

    def __init__(self, network: object, card: ModelCard, threads: int = 1) -> None:
        import torch
        from torch import nn

        assert isinstance(network, nn.Module)
        self._torch, self._network, self._card, self._threads = torch, network, card, threads

    def run(self, photos: Sequence[Photo]) -> list[Stages]:
        """The stages of each photo, computed one at a time."""
        self._torch.set_num_threads(self._threads)
        with self._torch.inference_mode():
            return [self._stages(photo) for photo in photos]

    def _stages(self, photo: Photo) -> Stages:
        torch, spec = self._torch, self._card.spec
        resized = resize_image(photo.image, spec)
        normalized = normalize(resized[np.newaxis], spec)
        logits = self._network(torch.from_numpy(normalized))
        probabilities = torch.softmax(logits / self._card.temperature, dim=1)
        return Stages(
            decoded=photo.pixels,
            resized=resized,
            normalized=normalized[0],
            logits=logits[0].numpy(),
            probabilities=probabilities[0].numpy(),
        )
