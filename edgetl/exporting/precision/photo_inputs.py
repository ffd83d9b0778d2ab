"""Photos from files as the network sees them, kept in memory as far as that is cheap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import normalize, resize_image
from edgetl.runtime.images.spec import PreprocessSpec

CACHE_BYTES = 2**30  # 7,000 photos of 224 × 224 pixels; those beyond it are read again each time


class Pictures:
    """Iterating gives normalized float32 [1, 3, h, w], one a path, in order. Raises ImageError for an unreadable one."""

    def __init__(self, paths: Sequence[Path], spec: PreprocessSpec) -> None:
        self._paths, self._spec = paths, spec
        self._resized: dict[Path, NDArray[np.uint8]] = {}
        self._cached = 0  # bytes

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (normalize(self._read(path)[None], self._spec) for path in self._paths)

    def _read(self, path: Path) -> NDArray[np.uint8]:
        if path in self._resized:
            return self._resized[path]
        resized = resize_image(read_image(path), self._spec)
        if self._cached + resized.nbytes <= CACHE_BYTES:
            self._resized[path] = resized
            self._cached += resized.nbytes
        return resized
