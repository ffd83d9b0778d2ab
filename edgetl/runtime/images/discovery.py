"""Which files in a folder are photos."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path

from edgetl.errors import DataError
from edgetl.runtime.images import heif

# Written by phones and cameras. They count as photos even if Pillow can't open them: to skip them
# silently would train on half of a folder.
_CAMERA_SUFFIXES = "avif jxl dng cr2 cr3 nef arw orf rw2 raf"
# Formats that Pillow opens, but that are containers of something else or run other programs.
_EXCLUDED_SUFFIXES = "pdf eps ps mpg mpeg h5 hdf fits fit grib bufr emf wmf iim blp icns"


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of photos, lower-case with the dot: those that Pillow opens, and of cameras."""
    from PIL import Image  # takes 30 ms, and is needed for folders only

    Image.init()
    readable = {suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN}
    readable -= {f".{name}" for name in _EXCLUDED_SUFFIXES.split()}
    cameras = {f".{name}" for name in _CAMERA_SUFFIXES.split()}
    return frozenset(readable | cameras | heif.SUFFIXES)


def find_images(folder: str | Path) -> list[Path]:
    """Every photo below ``folder``, by suffix, sorted by path, without hidden files and folders.

    Raises DataError if ``folder``, or a folder in it, can't be read.
    """
    return list(walk_images(folder))


def walk_images(folder: str | Path, *, strict: bool = True) -> Iterator[Path]:
    """What ``find_images`` lists, one at a time, so that a folder of any size takes little memory.

    strict  False: a folder that can't be read is yielded itself, and reading it as a photo fails
    """
    return _walk(Path(folder), strict, "Name a folder that holds photos.")


def is_walked(path: Path, folder: Path) -> bool:
    """Whether ``walk_images(folder)`` visits ``path``, a file or folder below it; both absolute."""
    inner = path.relative_to(folder).parts
    if any(name.startswith(".") for name in inner):
        return False
    if not is_folder(path) and path.suffix.lower() not in image_suffixes():
        return False
    places = [folder.joinpath(*inner[:depth]) for depth in range(1, len(inner) + 1)]
    return not any(place.is_symlink() and is_folder(place) for place in places)


def _walk(folder: Path, strict: bool, hint: str) -> Iterator[Path]:
    try:
        entries = _entries(folder)
    except OSError as error:
        if strict:
            raise DataError(f"{folder}: {error.strerror or error}.", hint) from error
        yield folder
        return
    for name in entries:
        path = folder / name
        if name.endswith("/"):
            yield from _walk(path, strict, "Make it readable, or move it away.")
        elif path.suffix.lower() in image_suffixes():
            yield path


def _entries(folder: Path) -> list[str]:
    """Names in ``folder`` that are not hidden, sorted as the whole paths would be.

    A folder's name ends in a slash. Links to folders are left out: they could form a loop.
    """
    with os.scandir(folder) as found:
        visible = (entry for entry in found if not entry.name.startswith("."))
        return sorted(
            entry.name + "/" * is_folder(entry)
            for entry in visible
            if not (entry.is_symlink() and is_folder(entry))
        )


def is_folder(entry: os.DirEntry[str] | Path) -> bool:
    """Whether it is a folder or a link to one. A broken link is a file, which can't be read."""
    try:
        return entry.is_dir()
    except OSError:  # is_dir returns False only for what is missing
        return False


def class_folder(photo: Path, root: Path, labels: Container[str]) -> str | None:
    """The label of ``photo``, a file below ``root``, by the folder that it is in; None without one.

    It is the outermost of its folders inside ``root`` that has the name of a label, or else
    ``root`` itself. As in training, folders further below belong to the same class.
    """
    inner = photo.relative_to(root).parts[:-1]
    return next((name for name in (*inner, root.absolute().name) if name in labels), None)
