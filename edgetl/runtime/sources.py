"""Which files in a folder are photos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from edgetl.errors import DataError


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes, with their dot, that the installed Pillow can open as a picture."""
    from PIL import Image  # costs 30 ms, and only folders need it here

    Image.init()
    containers = {".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".h5", ".hdf", ".fits", ".fit", ".grib", ".bufr", ".emf", ".wmf"}
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN) - containers


def find_images(folder: str | Path) -> list[Path]:
    """Every photo below ``folder``, by suffix, sorted by path; hidden files and folders are passed over.

    Raises DataError if ``folder`` is not a folder that can be read.
    """
    return list(walk_images(folder))


def walk_images(folder: str | Path) -> Iterator[Path]:
    """What ``find_images`` lists, one at a time, so that a folder of any size costs no memory."""
    folder = Path(folder)
    suffixes = image_suffixes()
    try:
        # Folders sort with a trailing slash, which gives the same order as sorting the whole paths as text.
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name + ("/" if entry.is_dir() else ""))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}.", "Name a folder that holds photos.") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from walk_images(entry.path)
        elif (path := Path(entry.path)).suffix.lower() in suffixes and not entry.is_dir():
            yield path
