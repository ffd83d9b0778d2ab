"""Small fast trainings for tests: a tiny network, tiny photos, a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from edgetl.training.recipes import resolve
from edgetl.training.run_folder import BEST
from edgetl.training.settings import TrainSettings

SMALL: dict[str, Any] = {
    "backbone": "timm/test_resnet",
    "weights": "none",
    "strategy": "full",
    "image_size": 32,
    "batch_size": 4,
    "epochs": 2,
    "warm_head": False,
    "workers": 1,
    "device": "cpu",
}


def small(data: Path, **changes: Any) -> TrainSettings:
    """Settings of a small run on ``data``."""
    return resolve(data, {**SMALL, **changes}, cuda=False)


def weights_of(run: Path) -> dict[str, Tensor]:
    """The kept weights of a run folder."""
    return load_file(run / BEST)
