"""Every photo decoded once: training photos squashed to one size, validation photos exactly as the predictor sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

from edgetl.data.image_folder import Sample, read_sample
from edgetl.errors import ImageError
from edgetl.runtime.images.decode import identify
from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.torch_env.distributed import Processes

_MARGIN = 1.3  # stored side / network's side: what cut-outs are enlarged from, without keeping whole photos
STEP = 32  # pixels: what most networks' last maps are smaller by
_MOST_ASPECT = 2.0  # longer photos are squashed to this
_LOOKED_AT = 100  # photos whose aspect is asked for
_ON_THEIR_SIDE = range(5, 9)  # EXIF orientations that swap width and height
_REDUCING_GAP = (
    3.0  # Pillow may shrink in whole steps down to 3 × the size first: much faster on large photos
)

Decode = Callable[[Sample], tuple[NDArray[np.uint8], float]]
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

    def fill(self, row: int, sample: Sample, decode: Decode) -> None:
        """Decode a photo into ``row``, or note why it can't be read. From any thread."""
        try:
            self.pixels[row], self.aspects[row] = decode(sample)
        except ImageError as error:
            self.unreadable[sample.path] = error.reason


def stored_size(size: tuple[int, int], aspect: float) -> tuple[int, int]:
    """(height, width) at which training photos are stored for a network that takes ``size``.

    aspect  width / height of most of them: squashed to a square, a long photo would be blurred along its longer side
    """
    return shaped(_MARGIN * math.sqrt(size[0] * size[1]), aspect)


def shaped(side: float, aspect: float) -> tuple[int, int]:
    """(height, width) of as many pixels as a square of ``side`` has, nearly, in whole steps.

    aspect  width / height; beyond 2 and below 1 / 2 as these
    """
    stretch = math.sqrt(min(max(aspect, 1 / _MOST_ASPECT), _MOST_ASPECT))
    height, width = (
        max(round(length / STEP), 1) * STEP for length in (side / stretch, side * stretch)
    )
    return height, width


def some_aspects(samples: Sequence[Sample]) -> list[float]:
    """Width / height of some of the photos, the same ones wherever they lie; [1] where none can be read."""
    some = sorted(samples, key=lambda sample: sample.digest)[:_LOOKED_AT]
    return [aspect for sample in some if (aspect := _aspect(sample.path))] or [1.0]


def typical_aspect(samples: Sequence[Sample]) -> float:
    """The median width / height of some of the photos; 1 where none can be read."""
    return float(np.median(some_aspects(samples)))


def _aspect(path: Path) -> float | None:
    """As its first bytes say; None where they say nothing. What a PNG says of being turned may come last."""
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with path.open("rb") as file:
            image = identify(file, str(path))
            turned = (
                image.format != "PNG" and image.getexif().get(Base.Orientation) in _ON_THEIR_SIDE
            )
            return image.height / image.width if turned else image.width / image.height
    except Exception:  # whatever a broken file makes of Pillow: decoding will say what is wrong
        return None


def squashed(image: Image.Image, size: tuple[int, int], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """uint8 [h, w, 3]: a training photo at ``size``, aspect ignored; its augmentation undoes that."""
    mode = Image.Resampling[spec.interpolation.upper()]
    return np.asarray(image.resize(size[::-1], mode, reducing_gap=_REDUCING_GAP))


@dataclass(frozen=True)
class Decoder:
    """Training photo → (uint8 [h, w, 3], squashed to ``size``, height × width; aspect).

    No function in a function: where processes are not forked, it is pickled for those that decode.
    """

    spec: PreprocessSpec
    size: tuple[int, int]

    def __call__(self, sample: Sample) -> tuple[NDArray[np.uint8], float]:
        """Raises ImageError; see ``read_sample``."""
        image = read_sample(sample)
        return squashed(image, self.size, self.spec), image.width / image.height


def exact_decoder(spec: PreprocessSpec) -> Decode:
    """Validation photo → (uint8 [h, w, 3], resized and cropped as the predictor does; aspect)."""

    def decode(sample: Sample) -> tuple[NDArray[np.uint8], float]:
        image = read_sample(sample)
        return resize_image(image, spec), image.width / image.height

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
        for _ in pool.map(lambda row: stored.fill(row, samples[row], decode), rows):
            done()
    return stored


def joined(mine: StoredPhotos, processes: Processes) -> StoredPhotos:
    """What the processes on this machine stored in their common room, and what any process could not read."""
    gathered = processes.all_gather((mine.aspects, mine.unreadable))
    first, aspects = processes.rank - processes.local_rank, mine.aspects.copy()
    for offset in range(processes.local_world_size):
        aspects[offset :: processes.local_world_size] = gathered[first + offset][0][
            offset :: processes.local_world_size
        ]
    return StoredPhotos(
        mine.pixels, aspects, {path: why for _, found in gathered for path, why in found.items()}
    )
