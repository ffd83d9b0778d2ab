"""Training photos decoded and squashed on the GPU and the cores. What nvJPEG can't be trusted with goes the ordinary way.

Only for training photos: another decoder gives slightly other pixels, and validation must see what the device will.
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
from torchvision.io import ImageReadMode, decode_jpeg

from edgetl.data.image_folder import Sample
from edgetl.runtime.images.decode import MAX_PIXELS
from edgetl.runtime.images.spec import Interpolation
from edgetl.system.ordered_map import ordered_map
from edgetl.training.input.decoded_photos import Decode, Done, StoredPhotos

_BATCH = 128  # photos given to nvJPEG at once: its units work side by side, and each call waits for the slowest
_BATCH_PIXELS = (
    1 << 26
)  # of all of them together: decoded and as float32 they take 15 bytes each on the GPU
_AHEAD = _BATCH  # files read before they are decoded
_HELPERS = 4  # threads that read and put for the GPU
_END_OF_IMAGE = b"\xff\xd9"


@dataclass(frozen=True)
class PlainJpeg:
    """A file that nvJPEG decodes as Pillow does. content: uint8 [bytes]; the size is in pixels."""

    content: Tensor
    width: int
    height: int


def store_on_gpu(
    samples: Sequence[Sample],
    decode: Decode,
    room: NDArray[np.uint8],
    device: torch.device,
    interpolation: Interpolation,
    *,
    part: tuple[int, int] = (0, 1),
    threads: int,
    done: Done = lambda: None,
) -> StoredPhotos:
    """As ``pixels.store``, by nvJPEG on ``device`` from the first photo on and by ``decode`` from the last, until they meet.

    So whichever is faster on this machine does more, and no core waits for the GPU. While the GPU decodes a batch, the next
    one's files are read and the last one's pixels are put into ``room``. Which of the two decodes a photo is chance.

    interpolation  how ``decode`` squashes photos, so that it does not matter who does
    """
    stored = StoredPhotos.none_yet(room)
    left = _Left(range(part[0], len(samples), part[1]))

    def fill() -> None:
        for row in left.for_cores():
            stored.fill(row, samples[row], decode)
            done()

    def look(row: int) -> Found:
        return row, plain_jpeg(samples[row])

    def put(jpegs: dict[int, PlainJpeg], pixels: Tensor) -> None:
        rows = list(jpegs)
        room[rows] = pixels.cpu().numpy()
        stored.aspects[rows] = [jpeg.width / jpeg.height for jpeg in jpegs.values()]
        for _ in rows:
            done()

    with (
        ThreadPoolExecutor(threads + _HELPERS) as pool,
        left,
        closing(ordered_map(pool, look, left.for_gpu(), _AHEAD)) as seen,
    ):
        filling = [pool.submit(fill) for _ in range(threads)]
        placing: list[Future[None]] = []
        _wake(device)
        for batch in _batches(seen):
            jpegs = dict(sorted(_jpegs(batch), key=lambda item: (item[1].height, item[1].width)))
            pixels = _decoded(list(jpegs.values()), room.shape[1:3], interpolation, device)
            for future in placing:  # at most two batches are on the GPU
                future.result()
            placing = [] if pixels is None else [pool.submit(put, jpegs, pixels)]
            left.refuse(row for row, _ in batch if row not in jpegs or pixels is None)
        filling += [
            pool.submit(fill) for _ in range(threads)
        ]  # the others may have ended before the last was refused
        for future in filling + placing:
            future.result()
    return stored


def _wake(device: torch.device) -> None:
    """Have nvJPEG begin, which takes seconds, before any photo is waiting for it instead of for a core."""
    buffer = io.BytesIO()
    Image.new("RGB", (256, 256)).save(buffer, "JPEG")
    _decoded([PlainJpeg(_tensor(buffer.getvalue()), 256, 256)], (8, 8), "bilinear", device)


class _Left:
    """Rows that nobody has begun, for any thread: the GPU takes the first, cores what it refused, then the last.

    Leaving the context empties it: after an error or Ctrl-C nothing more is begun.
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
    """An upright, whole RGB or grey JPEG within the limit on pixels; None for anything else, and for a changed file."""
    try:
        content = sample.path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            plain = (
                image.format == "JPEG"
                and image.mode in ("RGB", "L")
                and image.info.get("adobe_transform", 1)
                != 0  # else it holds RGB as it is, not brightness and colour
                and not image.info.get("progressive")  # decoded alone, while its whole batch waits
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


Found = tuple[int, PlainJpeg | None]  # row, what is there


def _batches(found: Iterable[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    pixels = 0
    for row, jpeg in found:
        size = jpeg.width * jpeg.height if jpeg else 0
        if batch and (len(batch) == _BATCH or pixels + size > _BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append((row, jpeg))
        pixels += size
    if batch:
        yield batch


def _jpegs(batch: list[Found]) -> Iterator[tuple[int, PlainJpeg]]:
    return ((row, jpeg) for row, jpeg in batch if jpeg is not None)


def _decoded(
    jpegs: Sequence[PlainJpeg],
    size: tuple[int, ...],
    interpolation: Interpolation,
    device: torch.device,
) -> Tensor | None:
    """uint8 [N, h, w, 3], squashed; None if there are none, or nvJPEG refuses one of them, or memory is short."""
    if not jpegs:
        return None
    squashed = None
    with suppress(RuntimeError):
        pictures = decode_jpeg(
            [jpeg.content for jpeg in jpegs], mode=ImageReadMode.RGB, device=device
        )
        squashed = _squashed(pictures, size, interpolation)
    if device.type == "cuda":
        # nvJPEG writes on a stream of its own: memory must not go back while either stream still uses it.
        torch.cuda.synchronize(device)
    return squashed


def _squashed(
    pictures: Sequence[Tensor], size: tuple[int, ...], interpolation: Interpolation
) -> Tensor:
    """uint8 [3, H, W] each, those of one shape side by side → uint8 [N, h, w, 3], contiguous."""
    resized = [
        F.interpolate(torch.stack(list(alike)).float(), size, mode=interpolation, antialias=True)
        for _, alike in itertools.groupby(pictures, key=lambda picture: picture.shape)
    ]
    # Turned on the device: in the processor's memory, bytes that lie far apart are copied one by one, 50 times slower.
    return (
        torch.cat(resized).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    )
