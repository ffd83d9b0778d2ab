"""Small photos and data sets, made on the spot; nothing here needs a file that is not in the repository."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import photo
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the test processes share the cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos of several shapes and formats, no classes."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, (width, height, suffix) in enumerate(
        [
            (64, 48, "jpg"),
            (48, 64, "png"),
            (33, 33, "jpg"),
            (200, 50, "jpg"),
            (31, 170, "png"),
            (224, 224, "jpg"),
            (5, 3, "png"),
            (300, 256, "webp"),
        ]
    ):
        photo(seed, width, height).save(folder / f"{seed}-{width}x{height}.{suffix}")
    return folder


@pytest.fixture(scope="session")
def class_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three easy classes in train/ and val/, 12 and 5 photos each: one hue a class."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 12), ("val", 5)):
        for channel, label in enumerate(("blue fish", "green, leaf", "red 花")):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.asarray(photo(1000 * channel + 100 * len(split) + i, 40 + i, 36)).copy()
                pixels[:, :, 2 - channel] = 255 - pixels[:, :, 2 - channel] // 4
                Image.fromarray(pixels).save(folder / split / label / f"{i}.jpg")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one matrix with odd labels and three golden photos; see tiny_bundle.py. Copy it to change it."""
    import tiny_bundle

    photos = (photo(1, 40, 30), photo(2, 30, 50), photo(3, 12, 12))
    return tiny_bundle.write(tmp_path_factory.mktemp("bundle") / "tiny", photos=photos)


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
