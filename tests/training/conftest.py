"""Small data folders to train on: two easy classes, photos of noise around a class's own colour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from training_runs import COLOURS, write_photo

from edgetl.training.backbones import Backbone, build
from edgetl.training.dataset import Sample, scan

WritePhotos = Callable[..., Path]


@pytest.fixture
def write_photos() -> WritePhotos:
    """A function: folder and class → number of photos, which writes them as ``folder/<class>/<n>.png``."""

    def write(folder: Path, counts: dict[str, int], *, first: int = 0, suffix: str = ".png") -> Path:
        for name, count in counts.items():
            colour = COLOURS.get(name, (120, 120, 120))
            for number in range(first, first + count):
                seed = number + 1000 * (list(COLOURS).index(name) if name in COLOURS else 9)
                write_photo(folder / name / f"{number:03}{suffix}", colour, seed)
        return folder

    return write


@pytest.fixture
def two_parts(tmp_path: Path, write_photos: WritePhotos) -> Path:
    """DATA/train with 8 + 8 photos and DATA/val with 5 + 4, classes ash and brick."""
    write_photos(tmp_path / "data/train", {"ash": 8, "brick": 8})
    write_photos(tmp_path / "data/val", {"ash": 5, "brick": 4}, first=100)
    return tmp_path / "data"


@pytest.fixture
def compiled_sizes(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The sizes of the batches that ``torch.compile`` compiled for, one entry a time. Photos of 32 × 32 pixels."""
    sizes = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        sizes.append({value.shape[0] for value in inputs if value.ndim == 4 and value.shape[1:] == (3, 32, 32)})
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return sizes


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Every request is refused at once, and the caches of pretrained weights are empty folders below the one given."""
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
    return build("timm/test_efficientnet", 3, weights="none")


@pytest.fixture
def samples(class_folder: Path) -> tuple[Sample, ...]:
    """The training photos of ``class_folder``."""
    return scan(class_folder).train
