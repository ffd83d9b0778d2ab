"""How a data folder is laid out: its parts, its classes, and into which part a photo falls."""

from __future__ import annotations

import errno
import hashlib
import stat
from pathlib import Path

from edgetl.errors import DataError

TRAIN, VAL = "train", "val"
WHOLE = ""  # the name of the one part of a folder that is not split yet
DEFAULT_VAL_FRACTION = 0.2
UNEVEN_RATIO = 3.0  # most photos of a class to fewest, from which accuracy hides what becomes of the small one

_OTHER_VAL_NAMES = ("valid", "validation", "test")


def data_parts(root: Path) -> dict[str, Path]:
    """The folders that hold class folders: ``train`` and ``val`` below ``root``, or ``root`` itself under WHOLE.

    Raises DataError if ``root`` is not a folder or has only one of the two.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder.", "Name the folder that holds one folder of photos for each class.")
    present = [name for name in (TRAIN, VAL) if (root / name).is_dir()]
    if len(present) == 1:
        raise _half_a_layout(root, present[0])
    return {name: root / name for name in present} or {WHOLE: root}


def class_names(folder: Path) -> list[str]:
    """The class folders' names, sorted; hidden folders are none."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def falls_into_val(digest: str, val_fraction: float) -> bool:
    """Whether the photo with this SHA-256 (hex) is one of the ``val_fraction`` to validate on: by its content alone,
    so that other photos coming, going or being renamed never move it."""
    return int(digest[:16], 16) < val_fraction * 2**64


def check_val_fraction(val_fraction: float) -> None:
    """Raises DataError unless it is above 0 and below 1."""
    if not 0 < val_fraction < 1:
        raise DataError(f"The validation share is {val_fraction}; it must be above 0 and below 1.")


def _half_a_layout(root: Path, present: str) -> DataError:
    missing = VAL if present == TRAIN else TRAIN
    other = next((name for name in _OTHER_VAL_NAMES if (root / name).is_dir()), None)
    if missing == VAL and other:
        return DataError(f"{root} has train/ and {other}/, but no val/.", f"Rename {other}/ to val/.")
    return DataError(
        f"{root} has {present}/, but no {missing}/.",
        f"Make {root / missing} with the same class folders, or give {root / present} to have it split.",
    )


def content_digest(path: Path) -> str:
    """SHA-256 of a regular file, hexadecimal. Raises OSError: a pipe would be waited for, for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
