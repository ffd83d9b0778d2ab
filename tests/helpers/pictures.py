"""Synthetic photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """An image with smooth parts and edges, different for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [
        np.sin(x / rng.uniform(2, 20) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(2, 20))
        for _ in range(3)
    ]
    pixels = 127.5 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


COLOURS = {
    "ash": (90, 90, 90),
    "brick": (170, 60, 40),
    "clover": (50, 150, 60),
    "dusk": (60, 60, 150),
}


def write_photo(
    path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (24, 32)
) -> None:
    """A JPEG or PNG of ``size`` (height, width): noise around ``colour``, made from ``seed``."""
    noise = np.random.default_rng(seed).normal(0, 40, (*size, 3))
    pixels = np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
