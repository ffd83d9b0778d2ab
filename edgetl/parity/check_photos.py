"""The photos of a check, decoded once for every runtime that shares the reference's decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.errors import ImageError, ParityError
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.photo_list import Columns, ListedPhoto
from edgetl.runtime.images.photo_places import photos_folder, photos_in
from edgetl.runtime.images.resize import refuse_extreme_shape
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.paths import name_below

CHUNK_PHOTOS = 16
CHUNK_PIXELS = 16_000_000  # 48 MB of decoded photos at a time, whatever their number


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo, decoded by ``read_image``. ``name``: what the reports call it."""

    path: Path
    name: str
    image: Image.Image

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], upright RGB."""
        return np.array(self.image)  # a copy, since torch warns about read-only arrays


@dataclass(frozen=True)
class Unreadable:
    """A photo that ``read_image`` or the resize refuses."""

    path: Path
    name: str
    reason: str


def find_photos(
    images: str | Path, *, columns: Columns = None, root: str | Path | None = None
) -> tuple[Path, list[ListedPhoto]]:
    """(root, photos) of a folder, of a list, or of a single file.

    Raises ParityError if there is none, DataError if the folder or list can't be read.
    """
    found = photos_in(images, columns=columns, root=root)
    if not found:
        raise ParityError(
            f"{images}: it holds no photos, so there is nothing to compare.",
            "Name a folder that holds some.",
        )
    return photos_folder(images, root), found


def read_chunks(
    paths: Sequence[Path], root: Path, spec: PreprocessSpec
) -> Iterator[list[Photo | Unreadable]]:
    """Decode ``paths`` in order, a bounded number of pixels at a time.

    The photos' names are relative to ``root``.
    """
    chunk: list[Photo | Unreadable] = []
    pixels = 0
    for path in paths:
        photo = _read(path, name_below(path, root), spec)
        size = photo.image.width * photo.image.height if isinstance(photo, Photo) else 0
        if chunk and (len(chunk) == CHUNK_PHOTOS or pixels + size > CHUNK_PIXELS):
            yield chunk
            chunk, pixels = [], 0
        chunk.append(photo)
        pixels += size
    if chunk:
        yield chunk


def _read(path: Path, name: str, spec: PreprocessSpec) -> Photo | Unreadable:
    try:
        image = read_image(path)
        refuse_extreme_shape(image, spec)
        return Photo(path, name, image)
    except ImageError as error:
        return Unreadable(path, name, error.reason)
