"""Where a trained network looked: its evidence for one class, over the places of a photo."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from edgetl.errors import ImageError
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import normalize, resize_image
from edgetl.runtime.inference.prediction import Prediction
from edgetl.system.machine import cores
from edgetl.system.missing_package import require_packages
from edgetl.training.models.checkpoint import Trained
from edgetl.training.models.evidence import EvidenceNetwork, find_maps
from edgetl.training.torch_env.device_transfer import channels_last
from edgetl.training.torch_env.malloc import keep_freed_memory
from edgetl.training.torch_env.torch_flags import one_thread

_CPU = torch.device("cpu")
_WINDOW, _STRIDE = 4, 8  # the side of the network's input divided by that of a square, and its step
_AT_ONCE = 8  # covered photos in one call of the network


class Explainer:
    """Evidence maps of a trained network, which is on the CPU.

    is_exact  whether the network has maps whose sums are its logits; others are only explained by
              ``by_occlusion``
    """

    def __init__(self, trained: Trained) -> None:
        self._trained = trained
        size = trained.card.spec.fixed_size or (224, 224)
        maps = find_maps(trained.network, trained.levels, size)
        self.is_exact = maps is not None
        self._network = trained.network
        if maps is not None:
            self._network = EvidenceNetwork(channels_last(trained.network, _CPU), maps)

    def __call__(self, photo: Path) -> Prediction:
        """The answer for a photo, with its ``evidence`` where that is exact.

        Raises ImageError if the photo can't be read.
        """
        with one_thread():
            return self._explain(photo, self._network)

    def _explain(self, photo: Path, network: nn.Module) -> Prediction:
        """See ``__call__``. network: ``self._network``, or a copy."""
        card, images = self._trained.card, self._normalized(photo)
        with torch.inference_mode():
            logits, evidence = network(images) if self.is_exact else (network(images), None)
        values = logits[0].numpy()
        probabilities = softmax(values.astype(np.float64) / card.temperature).astype(np.float32)
        maps = None if evidence is None else evidence[0].numpy()
        return Prediction(str(photo), card.labels, values, probabilities, evidence=maps)

    def evidence_for(self, photos: Sequence[tuple[Path, str]]) -> list[NDArray[np.float32] | None]:
        """What speaks for a class in each of N photos (file, label).

        N times float32 [y, x], or None where the photo can't be read.
        """
        threads = min(cores(), len(photos))
        parts = [photos[first::threads] for first in range(threads)]
        found: list[NDArray[np.float32] | None] = [None] * len(photos)
        pool = ThreadPoolExecutor(max(threads, 1))
        with keep_freed_memory(_CPU), one_thread(), pool:
            for first, evidence in enumerate(pool.map(self._evidence_of, parts)):
                found[first::threads] = evidence
        return found

    def _evidence_of(self, photos: Sequence[tuple[Path, str]]) -> list[NDArray[np.float32] | None]:
        """``evidence_for``, in the calling thread."""
        # Threads would overwrite what hooks keep in a network, but they can share its weights.
        weights = chain(self._network.parameters(), self._network.buffers())
        network = copy.deepcopy(self._network, {id(tensor): tensor for tensor in weights})
        found: list[NDArray[np.float32] | None] = []
        for photo, label in photos:
            try:
                found.append(self._explain(photo, network).evidence_for(label))
            except ImageError:
                found.append(None)
        return found

    def by_occlusion(self, photo: Path, index: int) -> NDArray[np.float32]:
        """How much the logit of class ``index`` falls where a square covers the photo.

        Less the mean fall of all classes. Float32 [h, w], of the network's input (Zeiler and
        Fergus, Visualizing and understanding convolutional networks, 2014). Raises ImageError,
        MissingDependencyError without captum.
        """
        require_packages("Explaining this network", "explain", "captum")
        from captum.attr import Occlusion

        def relative(images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self._trained.network(images)
            return logits[:, index] - logits.mean(1)

        images = self._normalized(photo)
        height, width = images.shape[2:]
        with torch.inference_mode():
            found = Occlusion(relative).attribute(
                images,
                sliding_window_shapes=(3, -(-height // _WINDOW), -(-width // _WINDOW)),
                strides=(3, -(-height // _STRIDE), -(-width // _STRIDE)),
                perturbations_per_eval=_AT_ONCE,
            )
        return np.asarray(found[0, 0].numpy(), np.float32)

    def _normalized(self, photo: Path) -> torch.Tensor:
        spec = self._trained.card.spec
        pixels = resize_image(read_image(photo), spec)
        images: torch.Tensor = torch.from_numpy(normalize(pixels[None], spec))
        return images
