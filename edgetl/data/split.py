"""Split class folders, or a list, into DST/train/<class>, DST/val/<class> and maybe DST/test."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetl.data.audit import DataIssue, file_findings, stray_photo
from edgetl.data.duplicates import by_content, find_near_duplicates
from edgetl.data.group_split import share_warnings, validation_digests
from edgetl.data.inspection import Inspection, file_state, inspect_all
from edgetl.data.layout import (
    DEFAULT_VAL_FRACTION,
    TEST,
    TRAIN,
    UNSPLIT,
    VAL,
    check_fractions,
    content_digest,
    layout_warnings,
    similar_names,
)
from edgetl.data.photo_source import PhotoSource
from edgetl.data.split_source import SplitSource, find_files_to_split
from edgetl.errors import DataError
from edgetl.runtime.images.stored_path import StoredPath
from edgetl.system.paths import is_there, name_below, real_path
from edgetl.system.progress import Progress, no_progress
from edgetl.system.temporary_folder import abandoned_folders, temporary_folder

_TRY_AGAIN = "Nothing was written; try again when no other program changes them."
_UNFINISHED = "unfinished"  # in the name of the temporary folder


@dataclass(frozen=True)
class SplitResult:
    """What ``split_folder`` did.

    counts    photos: "train", "val" and, if asked for, "test" → class → number
    left_out  findings of the files that are not in ``destination``
    groups    number of groups of two or more duplicates or near duplicates kept in one part
    clashes   findings of photos that are in several classes, and were kept in each
    notes     sentences about folders that may be a mistake, and shares that were not reached
    """

    source: Path
    destination: Path
    counts: Mapping[str, Mapping[str, int]]
    left_out: tuple[DataIssue, ...]
    groups: int
    clashes: tuple[DataIssue, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def shares(self) -> dict[str, float]:
        """Part → the share of all photos that is in it, 0..1."""
        totals = {part: sum(classes.values()) for part, classes in self.counts.items()}
        return {part: total / sum(totals.values()) for part, total in totals.items()}

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **asdict(self),
            "schema": 1,
            "shares": self.shares,
            "source": str(self.source),
            "destination": str(self.destination),
        }


def split_folder(
    source: str | Path | PhotoSource,
    destination: str | Path,
    *,
    val_fraction: float = DEFAULT_VAL_FRACTION,
    test_fraction: float | None = None,
    copy: bool = False,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> SplitResult:
    """Put each photo of ``source`` into ``train/<class>`` or ``val/<class>`` of ``destination``.

    The part depends on the photos' contents, not on their names; duplicates and near duplicates
    stay together. Of each class ``val_fraction`` is for validation, to within one such group (more
    where classes share photos), and at least one photo is in each part. ``train`` chooses the same
    photos where none are near duplicates: see ``validation_digests``. Files that training can't
    use are left out. ``destination`` appears complete or not at all, except for the instant between
    its parts if there already is an empty folder.

    source        a folder of class folders, what the cats-and-dogs archive unpacks to, or a list
    val_fraction  above 0 and below 1
    test_fraction  share of all photos for ``test/<class>``, taken from those that would be trained
                  on; with ``val_fraction`` below 1. None: no such part
    copy          copy the files; otherwise they are hard links. These take no space, survive the
                  removal of ``source``, and need no special rights on Windows, as symbolic links do
    threads       files read at a time (default: one for each core)

    Raises DataError if the source can't be split, or the destination is not empty or can't be
    written.
    """
    check_fractions(val_fraction, test_fraction)
    source = PhotoSource.of(source)
    destination = real_path(destination)
    _prepare_destination(real_path(source.path), destination)
    found = find_files_to_split(source)
    inspections = list(inspect_all(found.files, threads=threads, progress=progress))
    kept = [item for item in inspections if item.usable and item.path in found.labels]
    groups, static = _groups(kept, found.labels)
    wanted = {VAL: val_fraction} | ({TEST: test_fraction} if test_fraction is not None else {})
    part_of = _assign_parts(found, groups, wanted)
    with _complete_or_absent(destination) as unfinished:
        for item in kept:
            _put(item, unfinished / part_of[item.digest] / found.places[item.path], copy=copy)
    placed = Counter((part_of[item.digest], found.labels[item.path]) for item in kept)
    counts = {
        part: {name: placed[part, name] for name in found.classes} for part in (TRAIN, *wanted)
    }
    layout = layout_warnings({UNSPLIT: found.root}, [item.path for item in kept])
    if source.is_list:
        layout = similar_names(found.classes)
    notes = (*layout, *_share_notes(counts, wanted))
    if static:
        notes += (
            f"{static:,} photos look much the same, as from a fixed camera: "
            "only those of the same bytes were kept together.",
        )
    return SplitResult(
        found.path,
        destination,
        counts=counts,
        left_out=tuple(_left_out(inspections, found)),
        groups=sum(len(group) > 1 for group in groups),
        clashes=tuple(_clashes(kept, found)),
        notes=notes,
    )


def _prepare_destination(source: Path, destination: Path) -> None:
    """Remove what killed processes left. Raises DataError for what can't be a destination."""
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
    for parent, name in (
        (destination, _UNFINISHED),
        (destination.parent, f"{destination.name}.{_UNFINISHED}"),
    ):
        for folder in abandoned_folders(parent, name):
            shutil.rmtree(folder, ignore_errors=True)


def _groups(
    kept: Sequence[Inspection], labels: Mapping[Path, str]
) -> tuple[list[list[Inspection]], int]:
    """(groups of photos that must stay together, number of photos in static scenes).

    Every photo is in exactly one group; those of static scenes only with their exact duplicates.
    """
    copies = by_content(kept)
    found = find_near_duplicates(copies, lambda item: labels[item.path])
    together = [group.digests for group in found if not group.static_scene]
    single = set(copies).difference(*together)
    groups = [
        [item for digest in digests for item in copies[digest]]
        for digests in (*together, *([digest] for digest in copies if digest in single))
    ]
    static = [digest for group in found if group.static_scene for digest in group.digests]
    return groups, sum(len(copies[digest]) for digest in static)


def _assign_parts(
    found: SplitSource, groups: Sequence[list[Inspection]], wanted: Mapping[str, float]
) -> dict[str, str]:
    """Digest → part; ``wanted`` are the shares of all parts but "train".

    Raises DataError for a class that can't be in each part.
    """
    part_of = {item.digest: TRAIN for group in groups for item in group}
    left = 1.0
    for part, share in wanted.items():
        rest = [group for group in groups if part_of[group[0].digest] == TRAIN]
        photos = ((item.digest, found.labels[item.path]) for group in rest for item in group)
        together = [[*{item.digest: None for item in group}] for group in rest]
        part_of |= dict.fromkeys(validation_digests(photos, share / left, together), part)
        left -= share
    groups_of: dict[str, list[list[Inspection]]] = {name: [] for name in found.classes}
    for group in groups:
        for name in {found.labels[item.path] for item in group}:
            groups_of[name].append(group)
    parts = (TRAIN, *wanted)
    for name, own in groups_of.items():
        if len(own) < len(parts):
            raise _too_few_photos(name, own, found, parts)
        if {part_of[group[0].digest] for group in own} != {*parts}:
            raise DataError(
                f"Class {name!r} in {found.path} can't be in {_joined(parts)}: "
                "its photos are in other classes, too, and copies must stay together.",
                "Remove the copies that are in the wrong class: edgetl data check names them.",
            )
    return part_of


def _too_few_photos(
    name: str, own: Sequence[list[Inspection]], found: SplitSource, parts: Sequence[str]
) -> DataError:
    """The error for a class whose groups, ``own``, are fewer than the parts."""
    distinct = {i.digest for group in own for i in group if found.labels[i.path] == name}
    held = "no usable photo"
    hint = "Add photos of it, or remove its folder."
    if len(distinct) == 1:
        held = "only one distinct photo"
    elif len(distinct) > len(own):
        held = "only photos that look the same"
        hint = "Add other photos of it, or train on them without this split."
    elif distinct:
        held = f"only {len(distinct)} distinct photos"
    return DataError(
        f"Class {name!r} has {held} in {found.path}: not enough for {_joined(parts)}.", hint
    )


def _joined(parts: Sequence[str]) -> str:
    return "both train and val" if len(parts) == 2 else "each of train, val and test"


def _share_notes(
    counts: Mapping[str, Mapping[str, int]], wanted: Mapping[str, float]
) -> Iterator[str]:
    photos = Counter[str]()
    for classes in counts.values():
        photos.update(classes)
    purposes = {VAL: "to validate on", TEST: "to test on"}
    for part, share in wanted.items():
        yield from share_warnings(purposes[part], share, counts[part], photos)


def _left_out(inspections: Iterable[Inspection], found: SplitSource) -> Iterator[DataIssue]:
    for item in inspections:
        if not item.usable:
            yield from file_findings(item, found.root)
        elif item.path not in found.labels:
            yield stray_photo(item, found.root)


def _clashes(kept: Sequence[Inspection], found: SplitSource) -> Iterator[DataIssue]:
    for copies in by_content(kept).values():
        if len({found.labels[item.path] for item in copies}) > 1:
            message = "the same photo in several classes: one of them is wrong"
            paths = tuple(name_below(item.path, found.root) for item in copies)
            yield DataIssue("error", "several classes", message, paths)


@contextmanager
def _complete_or_absent(destination: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``destination`` if the block succeeds, else is removed.

    An existing folder is filled, not replaced: it may be a mount point, or its parent read-only.
    """
    exists = destination.is_dir()
    parent = destination if exists else destination.parent
    name = _UNFINISHED if exists else f"{destination.name}.{_UNFINISHED}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(parent, name) as unfinished:
            yield unfinished
            if not exists:
                unfinished.rename(destination)
                return
            placed: list[str] = []
            try:
                # Train comes last: nothing trains on the others alone.
                for part in (part for part in (TEST, VAL, TRAIN) if (unfinished / part).is_dir()):
                    (unfinished / part).rename(destination / part)
                    placed.append(part)
            except BaseException:
                for part in placed:
                    (destination / part).rename(unfinished / part)
                raise
    except OSError as error:
        hint = "Check its disk and its permissions."
        if error.errno == errno.ENOTEMPTY:
            hint = "Another program has filled it meanwhile."
        raise DataError(
            f"{destination} can't be written: {error.strerror or error}.", hint
        ) from error


def _put(item: Inspection, target: Path, *, copy: bool) -> None:
    """Link or copy a photo. Raises DataError, also if it changed since its part was chosen."""
    file = item.path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(file, StoredPath):
            target.write_bytes(file.read_bytes())
        elif copy:
            shutil.copy2(file, target)
        else:
            os.link(real_path(file), target)
        changed = file_state(file) != item.state and content_digest(target) != item.digest
    except OSError as error:
        reason = error.strerror or str(error)
        if not is_there(file):
            raise DataError(f"{file} was there a moment ago: {reason}.", _TRY_AGAIN) from error
        if copy or isinstance(file, StoredPath):
            raise
        hint = "Hard links work within one disk; use --copy to copy the photos."
        raise DataError(f"{file} can't be linked: {reason}.", hint) from error
    if changed:
        raise DataError(f"{file} changed while the photos were read.", _TRY_AGAIN)
