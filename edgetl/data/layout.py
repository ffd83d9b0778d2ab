"""The layout of a data folder: its parts, its classes, and the part that each photo belongs to."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from edgetl.errors import DataError
from edgetl.runtime.images.discovery import is_folder
from edgetl.system.message_text import enumerated
from edgetl.system.paths import is_there
from edgetl.system.shell import shell_word

TRAIN, VAL = "train", "val"
TEST = "test"  # not used in training; only searched for photos that it shares with the others
UNKNOWN = "unknown"  # beside train/ and val/: photos of no class, which are only judged with
UNSPLIT = ""  # the name of the only part of a folder without train/ and val/
DEFAULT_VAL_FRACTION = 0.2
# Photos of the largest class to those of the smallest. From here on, the accuracy can look good
# though the smallest class is hardly recognised.
UNEVEN_RATIO = 3.0

PART_OF = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""What people call a part, in any case → the part. A list may; folders must have its own name."""

_READ_BYTES = 1 << 20  # of a file at once
_OTHER_VAL_NAMES = ("valid", "validation", TEST)
_ADDED_BY_MACOS = "__MACOSX"  # to archives, beside the folders that were packed


def data_parts(root: Path) -> dict[str, Path]:
    """The folders that hold class folders, by part.

    ``train`` and ``val`` below ``root``, or ``root`` itself as UNSPLIT.

    Raises DataError if ``root`` is not a folder, has only one of the two, or holds parts where
    classes should be.
    """
    if not (is_there(root) and root.is_dir()):
        raise DataError(
            f"{root} is not a folder.",
            "Name the folder that holds one folder of photos for each class, "
            "or a list of photos: a .csv, .tsv, .jsonl or .parquet file.",
        )
    present = [name for name in (TRAIN, VAL) if (root / name).is_dir()]
    if len(present) == 1:
        raise _missing_part(root, present[0])
    if not present:
        _refuse_parts_as_classes(root)
    return {name: root / name for name in present} or {UNSPLIT: root}


def class_names(folder: Path) -> list[str]:
    """The sorted names of the class folders: all but hidden ones and macOS's additions to archives.

    Raises DataError for a folder that can't be read.
    """
    try:
        # scandir tells folders from files without a stat call for each of a million photos.
        with os.scandir(folder) as entries:
            return sorted(
                entry.name for entry in entries if is_folder(entry) and not is_ignored(entry.name)
            )
    except OSError as error:
        raise DataError(
            f"{folder}: {error.strerror}.", "Make it readable, or move it away."
        ) from error


def is_ignored(name: str) -> bool:
    """Whether a folder of this name is not searched for photos."""
    return name.startswith(".") or name == _ADDED_BY_MACOS


def name_error(name: str) -> DataError | None:
    """Why a folder of this name can't be a class or hold classes: labels must be valid Unicode."""
    try:
        name.encode()
    except UnicodeEncodeError:
        with suppress(UnicodeDecodeError):
            text = os.fsencode(name).decode()
            return DataError(
                f"The folder {text!r} can't be read in this locale, whose encoding of file names "
                f"is {sys.getfilesystemencoding()}.",
                "Set PYTHONUTF8=1, and run the command again.",
            )
        return DataError(f"The folder {name!a} has a name that is not UTF-8.", "Rename it.")
    return None


def too_few_classes(folder: Path, names: Sequence[str]) -> DataError | None:
    """Why the class folders ``names`` in ``folder`` are not enough to train on, or None."""
    if len(names) >= 2:
        return None
    hint = "Make one folder for each class and put its photos there."
    if names and (folder / names[0]).is_dir() and len(class_names(folder / names[0])) >= 2:
        hint = f"Did you mean {folder / names[0]}?"
    held = f"one class folder only, {names[0]}" if names else "no class folder"
    return DataError(f"{folder} holds {held}; a classifier needs two classes or more.", hint)


def layout_warnings(parts: Mapping[str, Path], photos: Iterable[Path]) -> Iterator[str]:
    """Sentences about class folders that may be a mistake.

    parts   what ``data_parts`` returned
    photos  the photos in class folders
    """
    # Class folder → its own subfolders that hold photos, "" for the class folder itself.
    subfolders: dict[Path, set[str]] = {}
    parents = sorted({path.parent for path in photos})
    for part in parts.values():
        for parent in parents:
            if parent.is_relative_to(part):
                name, *below = parent.relative_to(part).parts
                subfolders.setdefault(part / name, set()).add(below[0] if below else "")

    deep = [folder for folder, below in subfolders.items() if len(below) > 1 and "" not in below]
    if deep:
        names = enumerated(list(dict.fromkeys(folder.name for folder in deep)))
        yield (
            f"All photos of {names} lie in folders further below "
            f"({enumerated(sorted(subfolders[deep[0]]))}): each counts as one of its class."
        )
    yield from similar_names(folder.name for folder in subfolders)
    links = sorted(
        Path(parent, name).relative_to(folder.parent).as_posix()
        for folder in subfolders
        for parent, inner, _ in os.walk(folder)
        for name in inner
        if Path(parent, name).is_symlink() and not name.startswith(".")
    )
    if links:
        yield f"Links to folders below a class are not followed: {enumerated(links)}."


def similar_names(classes: Iterable[str]) -> Iterator[str]:
    """A sentence for each group of classes whose names look the same."""
    similar: dict[str, set[str]] = {}
    for name in classes:
        similar.setdefault(normalized_name(name), set()).add(name)
    for twins in (sorted(names) for names in similar.values() if len(names) > 1):
        yield f"Classes {', '.join(map(ascii, twins))} have names that look the same: are they one?"


def normalized_name(name: str) -> str:
    """Equal for names that look the same, as with accents, which macOS writes as two characters."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def check_fractions(val_fraction: float, test_fraction: float | None = None) -> None:
    """Raises DataError unless each is above 0 and both together are below 1."""
    for part, share in (("validation", val_fraction), (TEST, test_fraction)):
        if share is not None and not 0 < share < 1:
            raise DataError(f"The {part} share is {share}; it must be above 0 and below 1.")
    if val_fraction + (test_fraction or 0) >= 1:
        raise DataError(
            f"The validation share of {val_fraction} and the test share of {test_fraction} "
            "leave nothing to train on.",
            "Give smaller ones.",
        )


def content_digest(path: Path) -> str:
    """SHA-256 of a regular file, hexadecimal.

    Raises OSError, also for what is not a regular file: reading a pipe could wait forever.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    digest = hashlib.sha256()
    with path.open("rb", 0) as file:  # without a buffer, one call reads most photos
        while content := file.read(_READ_BYTES):
            digest.update(content)
    return digest.hexdigest()


def _refuse_parts_as_classes(root: Path) -> None:
    """Raises DataError where parts with other names, or one level too deep, look like classes."""
    names = class_names(root)
    if len(names) > 1 and PART_OF.keys() >= {name.lower() for name in names}:
        raise DataError(
            f"{root} holds {', '.join(f'{name}/' for name in names)}: parts of data, not classes.",
            "Rename them to train/ and val/.",
        )
    for name in names:
        folder = root / name
        parts = [f"{inner}/" for inner in class_names(folder) if inner.lower() in PART_OF]
        if len(parts) > 1:
            raise DataError(
                f"{folder} holds {', '.join(parts)}: it is a data folder, not a class.",
                f"Name {folder}; or, if {name} is a class, make train/ and val/ the outer folders.",
            )


def _missing_part(root: Path, present: str) -> DataError:
    missing = VAL if present == TRAIN else TRAIN
    other = next((name for name in _OTHER_VAL_NAMES if (root / name).is_dir()), None)
    if missing == VAL and other:
        hint = f"Rename {other}/ to val/."
        if other == TEST:  # the best weights are chosen by val/, which would spoil the test
            split = f"edgetl data split {shell_word(root / TRAIN)} NEW"
            hint = f"Keep test/ for the end, and split train/: {split}"
        return DataError(f"{root} has train/ and {other}/, but no val/.", hint)
    if not class_names(root / present):
        return DataError(
            f"{root / present} holds no class folder; "
            f"{present}/ and {missing}/ are the parts of the data.",
            f"If {present} is a class, rename it, "
            "or make train/ and val/ folders around all classes.",
        )
    return DataError(
        f"{root} has {present}/, but no {missing}/.",
        f"Make {root / missing} with the same class folders, "
        f"or give {root / present} to have it split.",
    )
