"""How a data folder is laid out: its parts, its classes, and into which part a photo falls."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from edgetl.errors import DataError
from edgetl.runtime.images.discovery import is_folder
from edgetl.system.paths import is_there
from edgetl.system.shell import shell_word

TRAIN, VAL, TEST = (
    "train",
    "val",
    "test",
)  # the last is left alone, but for what it has in common with the others
WHOLE = ""  # the name of the one part of a folder that is not split yet
DEFAULT_VAL_FRACTION = 0.2
UNEVEN_RATIO = (
    3.0  # most photos of a class to fewest, from which accuracy hides what becomes of the small one
)

_OTHER_VAL_NAMES = ("valid", "validation", TEST)
_PART_NAMES = frozenset({TRAIN, "training", VAL, *_OTHER_VAL_NAMES, "testing"})  # in any case
_ADDED_BY_MACOS = "__MACOSX"  # to archives, beside the folders that were packed
_LISTED = 5  # names in a sentence


def data_parts(root: Path) -> dict[str, Path]:
    """The folders that hold class folders: ``train`` and ``val`` below ``root``, or ``root`` itself under WHOLE.

    Raises DataError if ``root`` is not a folder, has only one of the two, or holds parts where classes should be.
    """
    if not (is_there(root) and root.is_dir()):
        raise DataError(
            f"{root} is not a folder.",
            "Name the folder that holds one folder of photos for each class.",
        )
    present = [name for name in (TRAIN, VAL) if (root / name).is_dir()]
    if len(present) == 1:
        raise _half_a_layout(root, present[0])
    if not present:
        _refuse_parts_for_classes(root)
    return {name: root / name for name in present} or {WHOLE: root}


def class_names(folder: Path) -> list[str]:
    """The class folders' names, sorted; hidden folders and macOS's additions to archives are none.

    Raises DataError for a folder that can't be read."""
    try:
        with os.scandir(
            folder
        ) as entries:  # knows folders from files without a look at each of a million photos
            return sorted(
                entry.name for entry in entries if is_folder(entry) and not passed_over(entry.name)
            )
    except OSError as error:
        raise DataError(
            f"{folder}: {error.strerror}.", "Make it readable, or move it away."
        ) from error


def passed_over(name: str) -> bool:
    """Whether a folder of this name holds no photos, whatever lies in it."""
    return name.startswith(".") or name == _ADDED_BY_MACOS


def no_text(name: str) -> DataError | None:
    """Why a folder of this name can't be a class, or hold one, or None: labels and settings are text, in every file."""
    try:
        name.encode()
    except UnicodeEncodeError:
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


def oddities(parts: Mapping[str, Path], photos: Iterable[Path]) -> Iterator[str]:
    """Sentences on class folders that may not be what was meant. parts: of ``data_parts``; photos: those in class folders."""
    below: dict[
        Path, set[str]
    ] = {}  # class folder → its own folders that hold photos, "" for itself
    homes = sorted({path.parent for path in photos})
    for folder in parts.values():
        for name, *inner in (
            home.relative_to(folder).parts for home in homes if home.is_relative_to(folder)
        ):
            below.setdefault(folder / name, set()).add(inner[0] if inner else "")
    deep = [folder for folder, inner in below.items() if len(inner) > 1 and "" not in inner]
    if deep:
        names = list(dict.fromkeys(folder.name for folder in deep))
        inner_names = _shown(sorted(below[deep[0]]))
        yield f"All photos of {_shown(names)} lie in folders further below ({inner_names}): each counts as one of its class."
    alike: dict[str, set[str]] = {}
    for class_folder in below:
        alike.setdefault(look_of(class_folder.name), set()).add(class_folder.name)
    for twins in (sorted(names) for names in alike.values() if len(names) > 1):
        yield f"Classes {', '.join(map(ascii, twins))} have names that look the same: are they one?"
    linked = sorted(
        link.relative_to(folder.parent).as_posix()
        for folder in below
        for link in _linked_folders(folder)
    )
    if linked:
        yield f"Links to folders below a class are not followed: {_shown(linked)}."


def look_of(name: str) -> str:
    """The same for names that a person takes for one, as of accents that a Mac writes as letters of their own."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def _linked_folders(folder: Path) -> Iterator[Path]:
    for parent, folders, _ in os.walk(folder):
        yield from (
            Path(parent, name)
            for name in folders
            if Path(parent, name).is_symlink() and not name.startswith(".")
        )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def falls_into_val(digest: str, val_fraction: float) -> bool:
    """Whether the photo with this SHA-256 (hex) is one of the ``val_fraction`` to validate on: by its content alone,
    so that other photos coming, going or being renamed never move it."""
    return int(digest[:16], 16) < val_fraction * 2**64


def validation_digests(classes: Iterable[Collection[str]], val_fraction: float) -> set[str]:
    """Which photos of a folder that is not split validate: those that ``falls_into_val`` says, and a few more or fewer.

    classes  the digests of each class's photos

    Of each class one photo is trained on, and, if it has two, one is judged on: the ones that their content brings
    closest to that. (Where classes share photos, there may be no such thing: then training comes first.) They may change
    sides again when photos of a tiny class are added; no other photo ever does.
    """
    parts = [set(digests) for digests in classes if digests]
    val = {digest for part in parts for digest in part if falls_into_val(digest, val_fraction)}
    for part in parts:
        if part <= val:
            val.remove(max(part))
    for part in parts:
        if len(part) > 1 and val.isdisjoint(part):
            free = (
                one
                for one in sorted(part)
                if all(other - val - {one} for other in parts if one in other)
            )
            val.update(islice(free, 1))
    return val


def check_val_fraction(val_fraction: float) -> None:
    """Raises DataError unless it is above 0 and below 1."""
    if not 0 < val_fraction < 1:
        raise DataError(f"The validation share is {val_fraction}; it must be above 0 and below 1.")


def _refuse_parts_for_classes(root: Path) -> None:
    """Raises DataError where training would take train and val for classes, under whatever names."""
    names = class_names(root)
    if len(names) > 1 and _PART_NAMES.issuperset(name.lower() for name in names):
        raise DataError(
            f"{root} holds {', '.join(f'{name}/' for name in names)}: parts of data, not classes.",
            "Rename them to train/ and val/.",
        )
    for name in names:
        parts = [f"{inner}/" for inner in class_names(root / name) if inner.lower() in _PART_NAMES]
        if len(parts) > 1:
            raise DataError(
                f"{root / name} holds {', '.join(parts)}: it is a data folder, not a class.",
                f"Name {root / name}; or, if {name} is a class, make train/ and val/ the outer folders.",
            )


def _half_a_layout(root: Path, present: str) -> DataError:
    missing = VAL if present == TRAIN else TRAIN
    other = next((name for name in _OTHER_VAL_NAMES if (root / name).is_dir()), None)
    if (
        missing == VAL and other == TEST
    ):  # weights are chosen on val/, and a test that they were chosen on is none
        hint = f"Keep test/ for the end, and split train/: edgetl data split {shell_word(root / TRAIN)} NEW"
        return DataError(f"{root} has train/ and test/, but no val/.", hint)
    if missing == VAL and other:
        return DataError(
            f"{root} has train/ and {other}/, but no val/.", f"Rename {other}/ to val/."
        )
    if not class_names(root / present):
        return DataError(
            f"{root / present} holds no class folder; {present}/ and {missing}/ are the parts of the data.",
            f"If {present} is a class, call it otherwise, or make train/ and val/ folders around all classes.",
        )
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
