"""Photos from files as the network's input, cached in memory up to a limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import normalize, resize_image
from edgetl.runtime.images.spec import PreprocessSpec

CACHE_BYTES = 2**30  # 7,000 photos of 224 × 224 pixels; the others are read again each time


class NormalizedPhotos:
    """Iterates over normalized float32 [1, 3, h, w], one per path, in order.

    Raises ImageError for a photo that can't be read.
    """

    def __init__(self, paths: Sequence[Path], spec: PreprocessSpec) -> None:
        self._paths, self._spec = paths, spec
        self._cache: dict[Path, NDArray[np.uint8]] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (normalize(self._resized(path)[None], self._spec) for path in self._paths)

    def _resized(self, path: Path) -> NDArray[np.uint8]:
        if path in self._cache:
            return self._cache[path]
        resized = resize_image(read_image(path), self._spec)
        if self._cached_bytes + resized.nbytes <= CACHE_BYTES:
            self._cache[path] = resized
            self._cached_bytes += resized.nbytes
        return resized
