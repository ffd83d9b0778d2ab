"""One look at each file of a data folder: can it be decoded, what is it, what does it look like."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from edgetl.data.fingerprints import Fingerprint, fingerprint
from edgetl.data.layout import content_digest, passed_over
from edgetl.errors import DataError, ImageError
from edgetl.runtime.images.decode import MAX_PIXELS, identify, read_image
from edgetl.runtime.images.discovery import image_suffixes
from edgetl.system.machine import cores
from edgetl.system.ordered_map import ordered_map

Progress = Callable[[int, int], None]  # files done, files in all

_UPRIGHT = 1  # the orientation of a photo that is stored as it is shown
_MOST_ASPECT = (
    MAX_PIXELS // 256**2
)  # of the longer side to the shorter, for the default backbone's resize
_SAME_FORMAT = {"MPO": "JPEG"}  # several JPEGs in one file, as cameras write them under .jpg
_BLANK_RANGE = (
    8  # levels of 0..255 in each channel; noise and compression move a white sheet by some
)
_WAITING = 4  # files queued for each thread: enough to keep it busy, few enough to hold no memory


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one file is. ``width`` and ``height`` are those of the upright photo, 0 where it can't be decoded.

    digest       SHA-256 of its bytes, hex ("" if they can't be read)
    photo        whether its suffix says that it is a photo, so that training would read it
    problem      why it can't be decoded, or None
    format       Pillow's name of what the bytes are ("JPEG"), or None
    suffix_lies  whether a file of this suffix is normally of another format
    rotated      whether EXIF says that it is stored turned or mirrored
    blank        whether all its pixels are nearly of one colour
    fingerprint  for finding near duplicates; None where undecodable or flat
    written      its size in bytes and when it was last written, ns, before all that was looked at
    """

    path: Path
    digest: str
    photo: bool
    problem: str | None
    format: str | None = None
    suffix_lies: bool = False
    width: int = 0
    height: int = 0
    rotated: bool = False
    blank: bool = False
    fingerprint: Fingerprint | None = None
    written: tuple[int, int] = (0, 0)

    @property
    def usable(self) -> bool:
        """Whether training reads it, and can."""
        return self.photo and self.problem is None


def inspect(path: Path) -> Inspection:
    """Read and decode one file. Never raises for what is wrong with the file."""
    photo = path.suffix.lower() in image_suffixes()
    try:
        written = written_at(path)
        digest = content_digest(path)
        picture = read_image(path)
    except ImageError as error:
        return Inspection(path, digest, photo, error.reason)
    except OSError as error:
        return Inspection(path, "", photo, (error.strerror or str(error)).lower())
    longer, shorter = max(picture.size), min(picture.size)
    if longer > _MOST_ASPECT * shorter:
        return Inspection(
            path,
            digest,
            photo,
            f"{picture.width}×{picture.height} pixels: too long and thin to be resized",
        )
    kind, rotated = _header(path)
    expected = Image.registered_extensions().get(path.suffix.lower())
    return Inspection(
        path,
        digest,
        photo,
        problem=None,
        format=kind,
        suffix_lies=kind != _SAME_FORMAT.get(expected or "", expected),
        width=picture.width,
        height=picture.height,
        rotated=rotated,
        blank=all(
            highest - lowest < _BLANK_RANGE
            for lowest, highest in np.reshape(picture.getextrema(), (-1, 2)).tolist()
        ),
        fingerprint=fingerprint(picture),
        written=written,
    )


def written_at(path: Path) -> tuple[int, int]:
    """See ``Inspection.written``. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def inspect_all(
    paths: Sequence[Path], *, threads: int | None = None, progress: Progress | None = None
) -> Iterator[Inspection]:
    """``inspect`` each of ``paths``, in order, several at a time (default: one thread a core; Pillow decodes outside
    the interpreter's lock). ``progress`` is called after each."""
    image_suffixes()  # Pillow's plugins are registered once, before threads ask for them
    threads = threads or cores()
    with (
        ThreadPoolExecutor(threads) as pool,
        closing(ordered_map(pool, inspect, paths, threads * _WAITING)) as inspections,
    ):
        for done, inspection in enumerate(inspections, start=1):
            yield inspection
            if progress:
                progress(done, len(paths))


def walk_files(folder: Path, links: int) -> Iterator[Path]:
    """Every file below ``folder`` but hidden ones, in a stable order.

    links  levels of folders that may be links, as those of parts and classes may; deeper ones could lead round in a circle

    Raises DataError for a folder that can't be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: {error.strerror}.", "Make it readable, or move it away."
        ) from error

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        deep = len(Path(parent).relative_to(folder).parts) >= links
        visible = (name for name in folders if not passed_over(name))
        folders[:] = sorted(
            name for name in visible if not (deep and Path(parent, name).is_symlink())
        )
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _header(path: Path) -> tuple[str | None, bool]:
    """(format, whether EXIF turns it) of a file that was decoded."""
    kind = None
    try:
        with path.open("rb") as file:
            image = identify(file, str(path))
            kind = _SAME_FORMAT.get(image.format or "", image.format)
            return kind, image.getexif().get(Base.Orientation, _UPRIGHT) in range(2, 9)
    except Exception:  # metadata too broken to read counts as none, as it does in decoding; or the file is gone by now
        return kind, False
