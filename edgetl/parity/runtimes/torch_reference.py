"""The trained network itself, with which every runtime is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.parity.check_photos import Photo
from edgetl.parity.stages import Stages
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import EVIDENCE, FEATURES
from edgetl.runtime.images.resize import normalize, resize_image

if TYPE_CHECKING:
    from edgetl.training.models.ood_detector import OODDetector


class TorchReference:
    """Decode, Pillow's resize, normalize, network, softmax(logits / temperature).

    network   in eval mode, float32, on the CPU
              it may give features, and evidence, too
    detector  of the score, which needs the features; None: there is none
    """

    def __init__(
        self,
        network: object,
        card: ModelCard,
        threads: int = 1,
        detector: OODDetector | None = None,
    ) -> None:
        import torch
        from torch import nn

        from edgetl.exporting.formats.torch_ood_score import OODScore
        from edgetl.training.models.tapped_network import outputs_of

        assert isinstance(network, nn.Module)
        self._others = outputs_of(network)
        self._score = None if detector is None else OODScore(detector)
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
        outputs = self._network(torch.from_numpy(normalized))
        logits, *others = outputs if self._others else (outputs,)
        inner = dict(zip(self._others, others, strict=True))
        found: dict[str, NDArray[Any]] = {}
        if self._score is not None:
            score, embedding = self._score(inner[FEATURES], logits)
            found = {"embedding": embedding[0].numpy(), "ood_score": score[0].numpy()}
        if EVIDENCE in inner:
            found["evidence"] = inner[EVIDENCE][0].numpy()
        probabilities = torch.softmax(logits / self._card.temperature, dim=1)
        return Stages(
            decoded=photo.pixels,
            resized=resized,
            normalized=normalized[0],
            logits=logits[0].numpy(),
            probabilities=probabilities[0].numpy(),
            **found,
        )
