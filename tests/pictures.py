"""Photos made on the spot."""

from __future__ import annotations

import numpy as np
from PIL import Image


def photo(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A picture with smooth parts and edges, different for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / rng.uniform(2, 20) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(2, 20)) for _ in range(3)]
    pixels = 127.5 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
