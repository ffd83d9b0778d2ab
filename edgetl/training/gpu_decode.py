"""Training photos decoded and squashed on the GPU. What nvJPEG can't be trusted with goes the ordinary way.

Only for training photos: another decoder gives slightly other pixels, and validation must see what the device will.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from edgetl.errors import ImageError
from edgetl.runtime.images import MAX_PIXELS
from edgetl.training.dataset import Sample
from edgetl.training.pixels import Decode, Done, StoredPhotos

_BATCH = 64  # photos given to nvJPEG at once
_END_OF_IMAGE = b"\xff\xd9"
_ORIENTATION = 0x0112


def store_on_gpu(
    samples: Sequence[Sample],
    decode: Decode,
    room: NDArray[np.uint8],
    device: torch.device,
    *,
    part: tuple[int, int] = (0, 1),
    threads: int = 0,
    done: Done = lambda: None,
) -> StoredPhotos:
    """As ``pixels.store``, by nvJPEG on ``device`` where it can, else by ``decode``."""
    aspects = np.ones(len(samples), np.float32)
    unreadable: dict[Path, str] = {}

    def fill(row: int) -> None:
        try:
            room[row], aspects[row] = decode(samples[row].path)
        except ImageError as error:
            unreadable[samples[row].path] = error.reason

    rows = list(range(part[0], len(samples), part[1]))
    groups = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        read = pool.map(lambda row: plain_jpeg(samples[row].path), rows)
        for group in groups:
            contents = {row: content for row, content in zip(group, read, strict=False) if content is not None}
            pictures = _decoded(list(contents.values()), device)
            for row, picture in zip(contents, pictures, strict=False):
                aspects[row] = picture.shape[2] / picture.shape[1]
            by_gpu = list(contents)[: len(pictures)]
            if by_gpu:
                room[by_gpu] = _squashed(pictures, room.shape[1:3]).cpu().numpy()
            list(pool.map(fill, [row for row in group if row not in by_gpu]))
            for _ in group:
                done()
    return StoredPhotos(room, aspects, unreadable)


def plain_jpeg(path: Path) -> Tensor | None:
    """uint8 [bytes] of an upright, whole RGB or grey JPEG within the limit on pixels; None for anything else."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            plain = (
                image.format == "JPEG"
                and image.mode in ("RGB", "L")
                and image.width * image.height <= MAX_PIXELS
                and image.getexif().get(_ORIENTATION, 1) == 1
                and content.rstrip(b"\0").endswith(_END_OF_IMAGE)
            )
    except Exception:  # the ordinary decoder will say what is wrong with it
        return None
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if plain else None


def _decoded(contents: list[Tensor], device: torch.device) -> list[Tensor]:
    """uint8 [3, H, W] for each, or nothing at all if nvJPEG refuses one of them."""
    try:
        return list(decode_jpeg(contents, mode=ImageReadMode.RGB, device=device)) if contents else []
    except RuntimeError:
        return []


def _squashed(pictures: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """uint8 [N, h, w, 3]."""
    resized = [F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True) for picture in pictures]
    return torch.cat(resized).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
