"""Every photo decoded once: training photos squashed to one size, validation photos exactly as the predictor sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.errors import ImageError
from edgetl.runtime.images import read_image
from edgetl.runtime.preprocess import resize_image
from edgetl.runtime.spec import PreprocessSpec
from edgetl.training.dataset import Sample
from edgetl.training.distributed import Processes

_MARGIN = 1.3  # stored side / network's side: what cut-outs are enlarged from, without keeping whole photos
_MULTIPLE = 32
_REDUCING_GAP = 3.0  # Pillow may shrink in whole steps down to 3 × the size first: much faster on large photos

Decode = Callable[[Path], tuple[NDArray[np.uint8], float]]
Done = Callable[[], None]


@dataclass(frozen=True)
class StoredPhotos:
    """Decoded photos of one size, in the order in which they were given.

    pixels      uint8 [N, h, w, 3]; zeros where the photo can't be read
    aspects     float32 [N], width / height of the photo before
    unreadable  path → reason
    """

    pixels: NDArray[np.uint8]
    aspects: NDArray[np.float32]
    unreadable: dict[Path, str]

    @classmethod
    def none_yet(cls, room: NDArray[np.uint8]) -> StoredPhotos:
        """What ``fill`` will fill. room: uint8 [N, h, w, 3], zeros."""
        return cls(room, np.ones(len(room), np.float32), {})

    def fill(self, row: int, path: Path, decode: Decode) -> None:
        """Decode a photo into ``row``, or note why it can't be read. From any thread."""
        try:
            self.pixels[row], self.aspects[row] = decode(path)
        except ImageError as error:
            self.unreadable[path] = error.reason


def stored_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which training photos are stored for a network that takes ``size``."""
    height, width = (max(round(_MARGIN * side / _MULTIPLE), 1) * _MULTIPLE for side in size)
    return height, width


def squashed(image: Image.Image, size: tuple[int, int], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """uint8 [h, w, 3]: a training photo at ``size``, aspect ignored; its augmentation undoes that."""
    mode = Image.Resampling[spec.interpolation.upper()]
    return np.asarray(image.resize(size[::-1], mode, reducing_gap=_REDUCING_GAP))


def decoder(spec: PreprocessSpec, size: tuple[int, int] | None = None) -> Decode:
    """path → (uint8 [h, w, 3], aspect): squashed to ``size``, or by default resized and cropped as ``spec`` says."""

    def decode(path: Path) -> tuple[NDArray[np.uint8], float]:
        image = read_image(path)
        return (squashed(image, size, spec) if size else resize_image(image, spec)), image.width / image.height

    return decode


def store(
    samples: Sequence[Sample],
    decode: Decode,
    room: NDArray[np.uint8],
    *,
    part: tuple[int, int] = (0, 1),
    threads: int,
    done: Done = lambda: None,
) -> StoredPhotos:
    """Decode photos into ``room``, uint8 [N, h, w, 3].

    part     (k, n): only every n-th photo, from the k-th on; others fill the rest of the room
    threads  photos at a time
    done     called after each photo
    """
    stored = StoredPhotos.none_yet(room)
    with ThreadPoolExecutor(threads) as pool:
        rows = range(part[0], len(samples), part[1])
        for _ in pool.map(lambda row: stored.fill(row, samples[row].path, decode), rows):
            done()
    return stored


def joined(mine: StoredPhotos, processes: Processes) -> StoredPhotos:
    """What the processes on this machine stored in their common room, and what any process could not read."""
    gathered = processes.gather((mine.aspects, mine.unreadable))
    first, aspects = processes.rank - processes.local_rank, mine.aspects.copy()
    for offset in range(processes.local):
        aspects[offset :: processes.local] = gathered[first + offset][0][offset :: processes.local]
    return StoredPhotos(mine.pixels, aspects, {path: why for _, found in gathered for path, why in found.items()})
