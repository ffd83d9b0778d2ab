"""Which files in a folder are photos."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path

from edgetl.errors import DataError

# Phones and cameras write these. Where Pillow can't open them they are photos all the same: to pass them over in
# silence would train on half of a folder.
_CAMERA_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        "heic",
        "heif",
        "avif",
        "jxl",
        "dng",
        "cr2",
        "cr3",
        "nef",
        "arw",
        "orf",
        "rw2",
        "raf",
    )
)


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes, with their dot, of photos: those that the installed Pillow opens, and those of cameras."""
    from PIL import Image  # costs 30 ms, and only folders need it here

    Image.init()
    others = "pdf eps ps mpg mpeg h5 hdf fits fit grib bufr emf wmf iim blp icns"  # hold other things, or run programs
    containers = {f".{name}" for name in others.split()}
    return (
        frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN)
        - containers
        | _CAMERA_SUFFIXES
    )


def find_images(folder: str | Path) -> list[Path]:
    """Every photo below ``folder``, by suffix, sorted by path; hidden files and folders are passed over.

    Raises DataError if ``folder`` is not a folder that can be read.
    """
    return list(walk_images(folder))


def walk_images(folder: str | Path, *, strict: bool = True) -> Iterator[Path]:
    """What ``find_images`` lists, one at a time, so that a folder of any size costs little memory.

    strict  False: a folder that can't be read is yielded itself, for the reader of photos to refuse
    """
    folder = Path(folder)
    try:
        entries = _entries(folder)
    except OSError as error:
        if not strict:
            yield folder
            return
        raise DataError(
            f"{folder}: {error.strerror or error}.", "Name a folder that holds photos."
        ) from error
    yield from _walk(folder, entries, strict)


def is_walked(path: Path, folder: Path) -> bool:
    """Whether ``walk_images(folder)`` comes to ``path``, a file or a folder below it, both absolute."""
    inner = path.relative_to(folder).parts
    if any(name.startswith(".") for name in inner) or not (
        is_folder(path) or path.suffix.lower() in image_suffixes()
    ):
        return False
    places = [folder.joinpath(*inner[:depth]) for depth in range(1, len(inner) + 1)]
    return not any(place.is_symlink() and is_folder(place) for place in places)


def _walk(folder: Path, entries: list[str], strict: bool) -> Iterator[Path]:
    suffixes = image_suffixes()
    for name in entries:
        path = folder / name
        if not name.endswith("/"):
            if path.suffix.lower() in suffixes:
                yield path
            continue
        try:
            inner = _entries(path)
        except OSError as error:
            if strict:
                raise DataError(
                    f"{path}: {error.strerror or error}.", "Make it readable, or move it away."
                ) from error
            yield path
            continue
        yield from _walk(path, inner, strict)


def _entries(folder: Path) -> list[str]:
    """Names in ``folder`` that are not hidden, sorted; a folder's ends in a slash, which sorts as the whole paths would.

    A link to a folder is left out: it could lead round in a circle.
    """
    with os.scandir(folder) as found:
        visible = (entry for entry in found if not entry.name.startswith("."))
        return sorted(
            entry.name + "/" * is_folder(entry)
            for entry in visible
            if not (entry.is_symlink() and is_folder(entry))
        )


def is_folder(entry: os.DirEntry[str] | Path) -> bool:
    """Whether it is one, or a link to one. A link that leads nowhere is a file, which whoever reads it will name."""
    try:
        return entry.is_dir()
    except OSError:  # only for what is missing does Python say no
        return False


def class_folder(photo: Path, root: Path, labels: Container[str]) -> str | None:
    """As what ``photo``, a file below ``root``, is labelled: by the outermost of its folders that is named as a label, from
    those inside ``root`` on, then ``root`` itself; as in training, folders further below are of one class."""
    inner = photo.relative_to(root).parts[:-1]
    return next((name for name in (*inner, root.absolute().name) if name in labels), None)
