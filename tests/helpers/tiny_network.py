"""A convolutional network of a few hundred weights, and cards to go with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.unknown_limits import UnknownLimits
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.models.ood_detector import OODDetector
from edgetl.training.models.tapped_network import Tap, TappedNetwork

CROPPED = PreprocessSpec("shorter_side", 36, "bicubic", (31, 32), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
FREE = PreprocessSpec("shorter_side", 24, "bilinear", None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LABELS = ("two words", 'a,"b"\n', "花")


class TinyNetwork(nn.Module):
    """float32 [N, 3, h, w] of any size → logits float32 [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, len(LABELS))

    def forward(self, normalized: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.stem(normalized)))
        features = torch.relu(self.body(features) + features)
        return self.head(features.mean(dim=[2, 3]))


def tiny_network(seed: int = 0) -> TinyNetwork:
    torch.manual_seed(seed)
    network = TinyNetwork()
    with torch.no_grad():
        network.head.weight.mul_(20)  # answers that are far apart
        network.norm.running_var.uniform_(0.5, 2)
    return network.eval()


def tiny_card(spec: PreprocessSpec = CROPPED, temperature: float = 1.7) -> ModelCard:
    return ModelCard(
        LABELS,
        spec,
        "tiny",
        temperature,
        {"accuracy": 0.5},
        {"fingerprint": "f" * 64},
        {"torch": "2"},
    )


def tapped_network(seed: int = 0) -> TappedNetwork:
    """The same network, which also gives its features."""
    return TappedNetwork(tiny_network(seed), {"features": Tap("head")})


def tiny_detector(features: int = 8, dimensions: int = 4, centres: int = 6) -> OODDetector:
    """A detector with random values, its matrices rounded as those of a fitted one."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(features, dimensions)))[0].astype(np.float16)
    return OODDetector(
        mean=rng.normal(0.1, 0.1, features).astype(np.float32),
        projection=basis.astype(np.float32),
        centres=rng.normal(0, 0.3, (centres, dimensions)).astype(np.float16).astype(np.float32),
        distance_mean=0.5,
        distance_std=0.1,
        entropy_mean=0.6,
        entropy_std=0.2,
    )


def scored_card(spec: PreprocessSpec = CROPPED, threshold: float = 2.5) -> ModelCard:
    """A card with a threshold for the scores of ``tiny_detector``."""
    limits = UnknownLimits(threshold, 0.95, tiny_detector().sensitivity, {"photos": 100})
    return replace(tiny_card(spec), unknown=limits)
