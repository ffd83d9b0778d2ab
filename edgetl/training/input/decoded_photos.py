"""Every photo decoded once: training photos squashed to one size, validation photos exactly as
the predictor sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.data.image_folder import Sample, read_sample
from edgetl.errors import ImageError
from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.progress import Progress, ProgressCounter, no_progress
from edgetl.training.torch_env.distributed import Processes

# Pillow may first shrink in whole steps, down to this many times the size: faster on large photos.
_REDUCING_GAP = 3.0

DecodedPhoto = tuple[NDArray[np.uint8], float]
"""Pixels [h, w, 3]; width / height of the original photo."""
Decode = Callable[[Sample], DecodedPhoto]


@dataclass(frozen=True)
class DecodedPhotos:
    """Decoded photos of one size, in the order of the samples.

    pixels      uint8 [N, h, w, 3]; zeros where the photo can't be read
    aspects     float32 [N], width / height of the original photo
    unreadable  path → reason
    """

    pixels: NDArray[np.uint8]
    aspects: NDArray[np.float32]
    unreadable: dict[Path, str]

    @classmethod
    def empty(cls, pixels: NDArray[np.uint8]) -> DecodedPhotos:
        """No photo decoded yet; ``pixels``, uint8 [N, h, w, 3], are zeros to be filled."""
        return cls(pixels, np.ones(len(pixels), np.float32), {})

    def fill(self, row: int, sample: Sample, decode: Decode) -> None:
        """Decode a photo into ``row``, or note why it can't be read. Thread-safe."""
        try:
            self.pixels[row], self.aspects[row] = decode(sample)
        except ImageError as error:
            self.unreadable[sample.path] = error.reason


@dataclass(frozen=True)
class TrainingDecoder:
    """Decodes a training photo and resizes it to ``size`` (height, width), aspect ignored.

    Its augmentation undoes the change of aspect.
    A class and not a closure: where processes are not forked, it is pickled for the workers.
    """

    spec: PreprocessSpec
    size: tuple[int, int]

    def __call__(self, sample: Sample) -> DecodedPhoto:
        """Raises ImageError; see ``read_sample``."""
        image = read_sample(sample)
        mode = Image.Resampling[self.spec.interpolation.upper()]
        squashed = image.resize(self.size[::-1], mode, reducing_gap=_REDUCING_GAP)
        return np.asarray(squashed), image.width / image.height


@dataclass(frozen=True)
class ValidationDecoder:
    """Decodes, resizes and crops a photo exactly as the predictor does."""

    spec: PreprocessSpec

    def __call__(self, sample: Sample) -> DecodedPhoto:
        """Raises ImageError; see ``read_sample`` and ``resize_image``."""
        image = read_sample(sample)
        return resize_image(image, self.spec), image.width / image.height


def decode_photos(
    samples: Sequence[Sample],
    decode: Decode,
    out: NDArray[np.uint8],
    *,
    part: tuple[int, int] = (0, 1),
    threads: int,
    step: str = "Decoding photos",
    progress: Progress = no_progress,
) -> DecodedPhotos:
    """Decode photos into ``out``, uint8 [N, h, w, 3] of zeros.

    part     (k, n): only every n-th photo, from the k-th on; other processes fill the rest
    threads  photos decoded at a time
    step     what ``progress`` is called with
    """
    photos = DecodedPhotos.empty(out)
    rows = range(part[0], len(samples), part[1])
    count = ProgressCounter(progress, step, len(rows))
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda row: photos.fill(row, samples[row], decode), rows):
            count()
    return photos


def gather_decoded(mine: DecodedPhotos, processes: Processes) -> DecodedPhotos:
    """The photos that all processes of this machine decoded into one array.

    ``unreadable`` has those of the processes on other machines, too.
    """
    gathered = processes.all_gather((mine.aspects, mine.unreadable))
    first, count = processes.rank - processes.local_rank, processes.local_world_size
    aspects = mine.aspects.copy()
    for offset in range(count):
        aspects[offset::count] = gathered[first + offset][0][offset::count]
    unreadable = {path: reason for _, found in gathered for path, reason in found.items()}
    return DecodedPhotos(mine.pixels, aspects, unreadable)
