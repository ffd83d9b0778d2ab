"""What each file of a data folder is: whether it can be decoded, its format, size and looks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from edgetl.data.fingerprints import Fingerprint, fingerprint
from edgetl.data.layout import content_digest, is_ignored
from edgetl.errors import DataError, ImageError
from edgetl.runtime.images import heif
from edgetl.runtime.images.decode import MAX_PIXELS, identify, read_image
from edgetl.runtime.images.discovery import image_suffixes
from edgetl.system.machine import cores
from edgetl.system.ordered_map import ordered_map
from edgetl.system.progress import Progress, no_progress, track

_UPRIGHT = 1  # the EXIF orientation of a photo that is stored as it is shown
_MAX_ASPECT = MAX_PIXELS // 256**2  # longer to shorter side, for the default backbone's resize
_SAME_FORMAT = {"MPO": "JPEG"}  # several JPEGs in one file, which cameras name .jpg
_BLANK_RANGE = 8  # levels of 0..255 in each channel, as noise and compression leave a white sheet
_QUEUED = 4  # files for each thread: enough to keep it busy, few enough to hold little memory


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one file is.

    digest         SHA-256 of its bytes, hex ("" if they can't be read)
    photo          whether its suffix is that of a photo, so that training would read it
    problem        why it can't be decoded, or None
    format         Pillow's name of what the bytes are ("JPEG"), or None
    wrong_suffix   whether files of this suffix usually have another format
    width, height  of the upright photo in pixels, 0 if it can't be decoded
    rotated        whether EXIF says that it is stored rotated or mirrored
    blank          whether all its pixels have nearly the same colour
    fingerprint    to find near duplicates; None if it can't be decoded or is flat
    state          ``file_state`` before it was read
    """

    path: Path
    digest: str
    photo: bool
    problem: str | None
    format: str | None = None
    wrong_suffix: bool = False
    width: int = 0
    height: int = 0
    rotated: bool = False
    blank: bool = False
    fingerprint: Fingerprint | None = None
    state: tuple[int, int] = (0, 0)

    @property
    def usable(self) -> bool:
        """Whether training reads the file, and can."""
        return self.photo and self.problem is None


def inspect(path: Path) -> Inspection:
    """Read and decode one file. Never raises for what is wrong with the file."""
    suffix = path.suffix.lower()
    photo = suffix in image_suffixes()
    try:
        state = file_state(path)
        digest = content_digest(path)
        picture = read_image(path)
    except ImageError as error:
        return Inspection(path, digest, photo, error.reason)
    except OSError as error:
        return Inspection(path, "", photo, (error.strerror or str(error)).lower())
    width, height = picture.size
    if max(width, height) > _MAX_ASPECT * min(width, height):
        problem = f"{width}×{height} pixels: too long and thin to be resized"
        return Inspection(path, digest, photo, problem)
    kind, rotated = _format_and_rotation(path)
    expected = heif.FORMAT if suffix in heif.SUFFIXES else Image.registered_extensions().get(suffix)
    ranges = np.reshape(picture.getextrema(), (-1, 2)).tolist()
    return Inspection(
        path,
        digest,
        photo,
        problem=None,
        format=kind,
        wrong_suffix=kind != _SAME_FORMAT.get(expected or "", expected),
        width=width,
        height=height,
        rotated=rotated,
        blank=all(highest - lowest < _BLANK_RANGE for lowest, highest in ranges),
        fingerprint=fingerprint(picture),
        state=state,
    )


def file_state(path: Path) -> tuple[int, int]:
    """(size in bytes, time of the last change in ns), to notice changes. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def inspect_all(
    paths: Sequence[Path], *, threads: int | None = None, progress: Progress = no_progress
) -> Iterator[Inspection]:
    """``inspect`` each of ``paths``, in order.

    threads  files at a time (default: one for each core); Pillow decodes outside Python's GIL
    """
    image_suffixes()  # registers Pillow's plugins once, before threads ask for them
    threads = threads or cores()
    with (
        ThreadPoolExecutor(threads) as pool,
        closing(ordered_map(pool, inspect, paths, threads * _QUEUED)) as inspections,
    ):
        yield from track(inspections, len(paths), "Reading photos", progress)


def walk_files(folder: Path, link_levels: int) -> Iterator[Path]:
    """Every file below ``folder`` that is not hidden, in a stable order.

    link_levels  levels of folders that may be links, as parts and classes may; deeper links are not
                 followed, since they could form a loop

    Raises DataError for a folder that can't be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: {error.strerror}.", "Make it readable, or move it away."
        ) from error

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        deep = len(Path(parent).relative_to(folder).parts) >= link_levels
        folders[:] = sorted(
            name
            for name in folders
            if not is_ignored(name) and not (deep and Path(parent, name).is_symlink())
        )
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _format_and_rotation(path: Path) -> tuple[str | None, bool]:
    """(format, whether EXIF rotates it) of a file that can be decoded."""
    kind = None
    try:
        with path.open("rb") as file:
            image = identify(file, str(path))
            kind = _SAME_FORMAT.get(image.format or "", image.format)
            return kind, image.getexif().get(Base.Orientation, _UPRIGHT) in range(2, 9)
    except Exception:  # broken metadata counts as none, as in decoding; or the file is gone by now
        return kind, False
