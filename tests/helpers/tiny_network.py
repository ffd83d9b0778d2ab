"""A convolutional network of a few hundred weights, and cards to go with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec

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
