"""The torch.export file (.pt2) in torch, fed with photos that already have their target size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgetl.parity.photos import Photo, Unreadable
from edgetl.parity.runtimes.base import Runtime, Subject
from edgetl.parity.stages import Refusal, Stages
from edgetl.runtime.preprocess import resize_for_graph, resize_image


class ExportedProgram(Runtime):
    """torch.export records one path through the network: the one for pictures that need no resize."""

    name = "pt2"
    about = "the torch.export file in torch, resized outside"

    def __init__(self, subject: Subject) -> None:
        import torch

        program = torch.export.load(subject.file("pt2", "pt2"))
        self._torch, self._module = torch, program.module()
        self._spec, self._threads = subject.card.spec, subject.threads

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        self._torch.set_num_threads(self._threads)
        with self._torch.inference_mode():
            return [self._classify(photo) for photo in photos if isinstance(photo, Photo)]

    def _classify(self, photo: Photo) -> Stages:
        images = np.array(resize_for_graph(photo.image, self._spec))[np.newaxis]  # a copy that torch may write to
        logits, probabilities = self._module(self._torch.from_numpy(images))
        return Stages(
            resized=resize_image(photo.image, self._spec),
            logits=logits[0].numpy(),
            probabilities=probabilities[0].numpy(),
        )
