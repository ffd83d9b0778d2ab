"""Small data folders to train on: two easy classes, photos of noise around a class's own colour."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.small_backbone import SMALL_BACKBONE

from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build


@pytest.fixture
def compiled_sizes(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The batch sizes that ``torch.compile`` compiled for, one entry each time; 32 × 32 pixels."""
    sizes = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        sizes.append(
            {
                value.shape[0]
                for value in inputs
                if value.ndim == 4 and value.shape[1:] == (3, 32, 32)
            }
        )
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return sizes


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Refuse every request; the caches of pretrained weights are empty, below the folder given."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    caches = tmp_path / "caches"
    monkeypatch.setenv("TORCH_HOME", str(caches / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(caches / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    yield caches


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A tiny network of three classes with random weights, the same each time."""
    torch.manual_seed(0)
    return build(SMALL_BACKBONE, 3, weights="none")
