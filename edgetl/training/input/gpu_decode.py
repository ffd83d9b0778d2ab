"""Training photos decoded and squashed by nvJPEG on the GPU and by Pillow on the cores, together.

Only for training photos: nvJPEG's pixels differ slightly from Pillow's, and validation must see
exactly what the device will. Files that nvJPEG would decode otherwise are left to the cores.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base
from torch import Tensor

from edgetl.data.image_folder import Sample
from edgetl.runtime.images.decode import MAX_PIXELS
from edgetl.runtime.images.spec import Interpolation
from edgetl.system.ordered_map import ordered_map
from edgetl.system.progress import Progress, ProgressCounter, no_progress
from edgetl.training.input.decoded_photos import Decode, DecodedPhotos
from edgetl.training.torch_env.vision_libraries import ImageReadMode, decode_jpeg

# Photos in a call of nvJPEG, whose units work in parallel; the call waits for the slowest.
_BATCH = 128
_BATCH_PIXELS = 1 << 26  # in a call; decoded and as float32 they take 15 bytes each on the GPU
_AHEAD = _BATCH  # files read before they are decoded
_HELPER_THREADS = 4  # read files for the GPU and store what it decoded
_END_OF_IMAGE = b"\xff\xd9"


@dataclass(frozen=True)
class PlainJpeg:
    """A file that nvJPEG decodes as Pillow does. content: uint8 [bytes]; the size is in pixels."""

    content: Tensor
    width: int
    height: int


Row = tuple[int, PlainJpeg | None]  # row of a photo; None if the cores must decode it


def decode_photos_on_gpu(
    samples: Sequence[Sample],
    decode: Decode,
    out: NDArray[np.uint8],
    device: torch.device,
    interpolation: Interpolation,
    *,
    part: tuple[int, int] = (0, 1),
    threads: int,
    step: str = "Decoding photos",
    progress: Progress = no_progress,
) -> DecodedPhotos:
    """``decode_photos``, by nvJPEG from the first photo on and by ``decode`` from the last one.

    Both work until they meet, so the faster of the two does more. While the GPU decodes a batch,
    the files of the next one are read and the pixels of the last one are stored. Which of the two
    decodes a photo is left to chance.

    interpolation  how ``decode`` squashes photos
    """
    photos = DecodedPhotos.empty(out)
    rows = range(part[0], len(samples), part[1])
    queue, count = _WorkQueue(rows), ProgressCounter(progress, step, len(rows))

    def decode_on_cores() -> None:
        for row in queue.for_cores():
            photos.fill(row, samples[row], decode)
            count()

    def read(row: int) -> Row:
        return row, plain_jpeg(samples[row])

    def store(jpegs: dict[int, PlainJpeg], pixels: Tensor) -> None:
        stored = list(jpegs)
        out[stored] = pixels.cpu().numpy()
        photos.aspects[stored] = [jpeg.width / jpeg.height for jpeg in jpegs.values()]
        for _ in stored:
            count()

    with (
        ThreadPoolExecutor(threads + _HELPER_THREADS) as pool,
        queue,
        closing(ordered_map(pool, read, queue.for_gpu(), _AHEAD)) as found,
    ):
        on_cores = [pool.submit(decode_on_cores) for _ in range(threads)]
        storing: list[Future[None]] = []
        _warm_up(device)
        for batch in _batches(found):
            jpegs = _by_shape(batch)
            pixels = _decode_batch(list(jpegs.values()), out.shape[1:3], interpolation, device)
            for future in storing:  # at most two batches are on the GPU
                future.result()
            storing = [] if pixels is None else [pool.submit(store, jpegs, pixels)]
            queue.refuse(row for row, _ in batch if row not in jpegs or pixels is None)
        # The others may have ended before the last photo was refused.
        on_cores += [pool.submit(decode_on_cores) for _ in range(threads)]
        for future in on_cores + storing:
            future.result()
    return photos


def _warm_up(device: torch.device) -> None:
    """Initialise nvJPEG, which takes seconds, while the cores are free to take any photo."""
    buffer = io.BytesIO()
    Image.new("RGB", (256, 256)).save(buffer, "JPEG")
    _decode_batch([PlainJpeg(_tensor(buffer.getvalue()), 256, 256)], (8, 8), "bilinear", device)


class _WorkQueue:
    """Rows not begun yet: the GPU takes the first, cores what it refused, then the last.

    Thread-safe. Leaving the context empties it: after an error or Ctrl-C nothing more is begun.
    """

    def __init__(self, rows: Iterable[int]) -> None:
        self._rows, self._refused = deque(rows), deque[int]()

    def for_gpu(self) -> Iterator[int]:
        with suppress(IndexError):
            while True:
                yield self._rows.popleft()

    def for_cores(self) -> Iterator[int]:
        with suppress(IndexError):
            while True:
                try:
                    yield self._refused.popleft()
                except IndexError:
                    yield self._rows.pop()

    def refuse(self, rows: Iterable[int]) -> None:
        self._refused.extend(rows)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._rows.clear()
        self._refused.clear()


def plain_jpeg(sample: Sample) -> PlainJpeg | None:
    """The file of ``sample`` if it is a whole, upright RGB or grey JPEG within the pixel limit.

    None for anything else, and for a file that has changed since it was scanned.
    """
    try:
        content = sample.path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            # Transform 0 stores RGB itself, not brightness and colour. A progressive file is
            # decoded alone, while the rest of its batch waits.
            plain = (
                image.format == "JPEG"
                and image.mode in ("RGB", "L")
                and image.info.get("adobe_transform", 1) != 0
                and not image.info.get("progressive")
                and image.width * image.height <= MAX_PIXELS
                and image.getexif().get(Base.Orientation, 1) == 1
                and content.rstrip(b"\0").endswith(_END_OF_IMAGE)
                and hashlib.sha256(content).hexdigest() == sample.digest
            )
    except Exception:  # the ordinary decoder will say what is wrong with it
        return None
    return PlainJpeg(_tensor(content), image.width, image.height) if plain else None


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Groups of at most _BATCH photos and, but for a single larger one, _BATCH_PIXELS pixels."""
    batch: list[Row] = []
    pixels = 0
    for row, jpeg in rows:
        size = jpeg.width * jpeg.height if jpeg else 0
        if batch and (len(batch) == _BATCH or pixels + size > _BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append((row, jpeg))
        pixels += size
    if batch:
        yield batch


def _by_shape(batch: list[Row]) -> dict[int, PlainJpeg]:
    """The JPEGs of a batch, those of one shape next to each other."""
    jpegs = [(row, jpeg) for row, jpeg in batch if jpeg is not None]
    return dict(sorted(jpegs, key=lambda item: (item[1].height, item[1].width)))


def _decode_batch(
    jpegs: Sequence[PlainJpeg],
    size: tuple[int, ...],
    interpolation: Interpolation,
    device: torch.device,
) -> Tensor | None:
    """Decode and squash photos → uint8 [N, h, w, 3] on ``device``.

    None if there are none, nvJPEG refuses one of them, or memory is short.
    """
    if not jpegs:
        return None
    squashed = None
    with suppress(RuntimeError):
        contents = [jpeg.content for jpeg in jpegs]
        pictures = decode_jpeg(contents, mode=ImageReadMode.RGB, device=device)
        squashed = _squash(pictures, size, interpolation)
    if device.type == "cuda":
        # nvJPEG has a stream of its own: no memory may be freed while either stream uses it.
        torch.cuda.synchronize(device)
    return squashed


def _squash(
    pictures: Sequence[Tensor], size: tuple[int, ...], interpolation: Interpolation
) -> Tensor:
    """uint8 [3, H, W] each, those of one shape next to each other → uint8 [N, h, w, 3]."""
    resized = [
        F.interpolate(torch.stack(list(alike)).float(), size, mode=interpolation, antialias=True)
        for _, alike in itertools.groupby(pictures, key=lambda picture: picture.shape)
    ]
    pixels = torch.cat(resized).round_().clamp_(0, 255).to(torch.uint8)
    # Contiguous on the device: copying permuted bytes to the CPU would be 50 times slower.
    return pixels.permute(0, 2, 3, 1).contiguous()
