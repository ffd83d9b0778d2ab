"""From one folder of class folders to DST/train/<class> and DST/val/<class>, copies of a photo on one side."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetl.data.audit import DataIssue, file_findings, relative
from edgetl.data.duplicates import lookalikes, same_content
from edgetl.data.group_split import deal
from edgetl.data.inspection import Inspection, Progress, inspect_all, walk_files, written_at
from edgetl.data.layout import (
    DEFAULT_VAL_FRACTION,
    TRAIN,
    VAL,
    WHOLE,
    check_val_fraction,
    class_names,
    content_digest,
    data_parts,
    no_text,
    oddities,
    too_few_classes,
)
from edgetl.errors import DataError
from edgetl.system.paths import is_there, real_path
from edgetl.system.temporary_folder import abandoned_folders, temporary_folder

_AGAIN = "Nothing was written; begin again when nothing else works on them."
_UNFINISHED = "unfinished"  # what its folders are called until they are whole
ARCHIVE_FOLDER = "PetImages"  # what the cats-and-dogs archive unpacks, beside its licence


@dataclass(frozen=True)
class Split:
    """What ``split`` did.

    counts    photos: "train" and "val" → class → number
    left_out  findings of the files that are not in ``destination``
    groups    photos of a kind that were kept on one side: how many groups of two or more
    clashes   findings of the same photo in several classes, each of which now has it
    notes     sentences on folders that may not be what was meant
    """

    source: Path
    destination: Path
    counts: Mapping[str, Mapping[str, int]]
    left_out: tuple[DataIssue, ...]
    groups: int
    clashes: tuple[DataIssue, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **asdict(self),
            "schema": 1,
            "source": str(self.source),
            "destination": str(self.destination),
        }


def split(
    source: str | Path,
    destination: str | Path,
    *,
    val_fraction: float = DEFAULT_VAL_FRACTION,
    copy: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Split:
    """Put every photo of ``source`` into ``destination/train/<class>`` or ``destination/val/<class>``.

    The same photos always fall the same way, whatever they are called; copies and lookalikes go together. Of each class
    ``val_fraction`` is for validation, to within one such group (more, where classes share photos), and at least one
    on either side. Files that training can't use are left out. ``destination`` appears complete or not at all,
    but for the instant between val/ and train/ where an empty folder is there already.

    source        a folder of class folders, or what the cats-and-dogs archive unpacks to
    val_fraction  above 0 and below 1
    copy          copy the files; otherwise they are hard links: no space taken, and, unlike symbolic ones, still whole
                  when ``source`` is moved or removed, and makeable on Windows without special rights
    threads       files read at a time (default: one for each core)
    progress      told how many are read, of how many

    Raises DataError if the source can't be split, or the destination is not empty or can't be written.
    """
    check_val_fraction(val_fraction)
    source, destination = real_path(source), real_path(destination)
    _check_destination(source, destination)
    _sweep(destination)
    root = _class_root(source)
    names = class_names(root)
    for error in (too_few_classes(root, names), *map(no_text, names)):
        if error is not None:
            raise error
    inspections = list(inspect_all(list(walk_files(root, 1)), threads=threads, progress=progress))
    kept = [item for item in inspections if item.usable and item.path.parent != root]
    groups, crowded = _groups(kept, root)
    sides = _sides(names, groups, root, val_fraction)
    with _appearing(destination) as unfinished:
        for item in kept:
            inner = item.path.relative_to(
                root
            )  # with its subfolders, so that equal names stay apart
            _place(item, unfinished / sides[item.digest] / inner, copy=copy)
    placed = Counter((sides[item.digest], _class_of(item, root)) for item in kept)
    counts = {side: {name: placed[side, name] for name in names} for side in (TRAIN, VAL)}
    left_out, clashes = tuple(_left_out(inspections, root)), tuple(_clashes(kept, root))
    notes = tuple(oddities({WHOLE: root}, [item.path for item in kept]))
    if crowded:
        notes += (
            f"{crowded:,} photos look much the same, as a fixed camera's do: only those of the same bytes were kept together.",
        )
    return Split(
        root, destination, counts, left_out, sum(len(group) > 1 for group in groups), clashes, notes
    )


def _clashes(kept: Sequence[Inspection], root: Path) -> Iterator[DataIssue]:
    for copies in same_content(kept).values():
        if len({_class_of(item, root) for item in copies}) > 1:
            paths = tuple(relative(item.path, root) for item in copies)
            yield DataIssue(
                "error",
                "several classes",
                "the same photo in several classes: one of them is wrong",
                paths,
            )


def _check_destination(source: Path, destination: Path) -> None:
    if destination.exists() and not destination.is_dir():
        raise DataError(f"{destination} is not a folder.", "Name a folder that does not exist yet.")
    if destination.is_dir() and set(destination.iterdir()) - set(
        abandoned_folders(destination, _UNFINISHED)
    ):
        raise DataError(
            f"{destination} is not empty.",
            "Name a folder that does not exist yet, or empty this one first.",
        )
    if destination.is_relative_to(source):
        raise DataError(
            f"{destination} lies inside {source}.",
            "Name a folder outside of it; the source is not changed.",
        )


def _class_root(source: Path) -> Path:
    """The folder of class folders."""
    if set(data_parts(source)) != {WHOLE}:
        raise DataError(
            f"{source} is split already: it has train/ and val/.", "Train on it as it is."
        )
    return source / ARCHIVE_FOLDER if class_names(source) == [ARCHIVE_FOLDER] else source


def _class_of(item: Inspection, root: Path) -> str:
    return item.path.relative_to(root).parts[0]


def _groups(kept: Sequence[Inspection], root: Path) -> tuple[list[list[Inspection]], int]:
    """(photos that must stay together: of the same bytes, or alike; how many are in crowds, and so need not).

    Every photo is in exactly one group.
    """
    copies = same_content(kept)
    found = lookalikes(copies, lambda item: _class_of(item, root))
    together = [group.digests for group in found if not group.crowd]
    single = set(copies).difference(*together)
    groups = [
        [item for digest in digests for item in copies[digest]]
        for digests in (*together, *([digest] for digest in copies if digest in single))
    ]
    return groups, sum(
        len(copies[digest]) for group in found if group.crowd for digest in group.digests
    )


def _sides(
    names: Iterable[str], groups: Sequence[list[Inspection]], root: Path, val_fraction: float
) -> dict[str, str]:
    """Digest → "train" or "val". Raises DataError for a class that can't have a photo on both sides."""
    groups = sorted(groups, key=_key)
    held = [Counter(_class_of(item, root) for item in group) for group in groups]
    validates = deal(held, val_fraction)
    sides: dict[str, list[bool]] = {name: [] for name in names}
    for classes, side in zip(held, validates, strict=True):
        for name in classes:
            sides[name].append(side)
    for name, found in sides.items():
        if len(found) < 2:
            alike = (
                len(
                    {
                        item.digest
                        for group in groups
                        for item in group
                        if _class_of(item, root) == name
                    }
                )
                > 1
            )
            has = (
                "no usable photo"
                if not found
                else "only photos that look the same"
                if alike
                else "only one distinct photo"
            )
            raise DataError(
                f"Class {name!r} has {has} in {root}: not enough for both train and val.",
                "Add other photos of it, or train on the folder as it is."
                if alike
                else "Add photos of it, or remove its folder.",
            )
        if len(set(found)) < 2:
            raise DataError(
                f"Class {name!r} in {root} can't be on both sides: its photos are in other classes, too, and copies must stay "
                "together.",
                "Remove the copies that are in the wrong class: edgetl data check names them.",
            )
    return {
        item.digest: VAL if side else TRAIN
        for group, side in zip(groups, validates, strict=True)
        for item in group
    }


def _key(group: Sequence[Inspection]) -> str:
    """What decides a group's side: a photo's own content, as where a folder is trained on as it is, so that hardly any photo
    is trained on there and judged on here. The smallest of several is hashed once more: alone it would favour val."""
    digests = {item.digest for item in group}
    return min(digests) if len(digests) == 1 else hashlib.sha256(min(digests).encode()).hexdigest()


def _left_out(inspections: Iterable[Inspection], root: Path) -> Iterator[DataIssue]:
    for item in inspections:
        if not item.usable:
            yield from file_findings(item, root)
        elif item.path.parent == root:
            yield DataIssue(
                "warning",
                "stray photo",
                "a photo outside every class folder",
                (relative(item.path, root),),
            )


@contextmanager
def _appearing(destination: Path) -> Iterator[Path]:
    """A folder that takes the place of ``destination`` when the block ends well, and is removed otherwise.

    One that is there already is filled instead: it may be where a disk is mounted, or in a folder that may not be written.
    """
    there = destination.is_dir()
    parent = destination if there else destination.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(
            parent, _UNFINISHED if there else f"{destination.name}.{_UNFINISHED}"
        ) as unfinished:
            yield unfinished
            if there:
                _fill(destination, unfinished)
            else:
                unfinished.rename(destination)
    except OSError as error:
        hint = (
            "Something else has filled it meanwhile."
            if error.errno == errno.ENOTEMPTY
            else "Check its disk and its rights."
        )
        raise DataError(
            f"{destination} can't be written: {error.strerror or error}.", hint
        ) from error


def _fill(destination: Path, unfinished: Path) -> None:
    (unfinished / VAL).rename(destination / VAL)  # first: nothing trains on it alone
    try:
        (unfinished / TRAIN).rename(destination / TRAIN)
    except BaseException:
        (destination / VAL).rename(unfinished / VAL)
        raise


def _sweep(destination: Path) -> None:
    """Remove what killed runs left unfinished for ``destination``."""
    for parent, name in (
        (destination, _UNFINISHED),
        (destination.parent, f"{destination.name}.{_UNFINISHED}"),
    ):
        for folder in abandoned_folders(parent, name):
            shutil.rmtree(folder, ignore_errors=True)


def _place(item: Inspection, target: Path, *, copy: bool) -> None:
    """Raises DataError also for a photo that is not what was looked at: its side would be another's."""
    file = item.path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if copy:
            shutil.copy2(file, target)
        else:
            os.link(real_path(file), target)
        changed = written_at(file) != item.written and content_digest(target) != item.digest
    except OSError as error:
        reason = error.strerror or str(error)
        if not is_there(file):
            raise DataError(f"{file} was there a moment ago: {reason}.", _AGAIN) from error
        if copy:
            raise
        hint = "Hard links work within one disk; use --copy to copy the photos."
        raise DataError(f"{file} can't be linked: {reason}.", hint) from error
    if changed:
        raise DataError(f"{file} changed while the photos were looked at.", _AGAIN)
