"""A backbone of few tensors, known to timm: a run saves and copies it in a fraction of the time."""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from edgetl.training.torch_env.vision_libraries import timm

SMALL_BACKBONE = "timm/small_backbone"
DROPOUT_BACKBONE = "timm/dropout_backbone"
"""It draws random numbers in every step."""
UNEVEN_BACKBONE = "timm/uneven_backbone"
"""It pools 6 × 6 places, of 96 pixels a side, to 4 × 4, which ONNX can't."""

FIXED_BACKBONE = "timm/fixed_backbone"
"""It takes photos of 64 × 64 pixels only."""

_CHANNELS = (16, 24, 32, 48)


class SmallBackbone(nn.Module):
    """float32 [N, 3, h, w] → logits: a stem and three blocks, each of which halves the sides."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = _block(3, _CHANNELS[0])
        pairs = itertools.pairwise(_CHANNELS)
        self.blocks = nn.Sequential(*(_block(*pair) for pair in pairs))
        self.fc = nn.Linear(_CHANNELS[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(images)).mean((2, 3)))


class DropoutBackbone(SmallBackbone):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.dropout = nn.Dropout(0.2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.dropout(self.blocks(self.stem(images)).mean((2, 3))))


class UnevenBackbone(SmallBackbone):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.fc = nn.Linear(_CHANNELS[-1] * 4 * 4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.blocks(self.stem(images))).flatten(1))


class FixedBackbone(SmallBackbone):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.fc = nn.Linear(_CHANNELS[-1] * 4 * 4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(images)).flatten(1))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


@timm.models.register_model
def small_backbone(pretrained: bool = False, num_classes: int = 1000, **_: Any) -> nn.Module:
    return _described(SmallBackbone(num_classes))


@timm.models.register_model
def dropout_backbone(pretrained: bool = False, num_classes: int = 1000, **_: Any) -> nn.Module:
    return _described(DropoutBackbone(num_classes))


@timm.models.register_model
def uneven_backbone(pretrained: bool = False, num_classes: int = 1000, **_: Any) -> nn.Module:
    return _described(UnevenBackbone(num_classes))


@timm.models.register_model
def fixed_backbone(pretrained: bool = False, num_classes: int = 1000, **_: Any) -> nn.Module:
    return _described(FixedBackbone(num_classes))


def _described(network: Any) -> nn.Module:
    network.default_cfg = network.pretrained_cfg = {
        "input_size": (3, 64, 64),
        "crop_pct": 0.95,
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "classifier": "fc",
    }
    return network
