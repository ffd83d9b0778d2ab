"""Labelled photos, in folders or a list, for a network whose labels are known already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetl.data.image_folder import Sample
from edgetl.data.layout import content_digest
from edgetl.errors import DataError
from edgetl.runtime.images.discovery import class_folder
from edgetl.runtime.images.photo_list import photos_in

_LISTED = 5  # names in a message


def scan_labelled(place: Path, labels: Sequence[str]) -> tuple[Sample, ...]:
    """The photos of a folder, each in a folder named like one of ``labels``, or of a list.

    Raises DataError if there is none, if one has another label or none, or can't be opened.
    """
    place = place.absolute()
    indices = {label: index for index, label in enumerate(labels)}
    truths: dict[Path, str | None] = {}
    strange: dict[str, None] = {}
    for photo in photos_in(place):
        path = photo.path.absolute()
        inside = place if place.is_dir() else path.parent
        truths[path] = truth = photo.label or class_folder(path, inside, indices)
        if truth not in indices:
            strange.setdefault(truth or path.parent.name)
    if not truths:
        raise DataError(f"{place} holds no photos.", "Name a folder of class folders with photos.")
    if strange:
        raise DataError(
            f"{place} holds photos with other labels than the network's: {_listed([*strange])}.",
            f"Name folders like its labels: {_listed(labels)}.",
        )
    try:
        return tuple(
            Sample(path, indices[truth], content_digest(path))
            for path, truth in truths.items()
            if truth is not None
        )
    except OSError as error:
        raise DataError(f"{error.filename} can't be read: {error.strerror}.") from error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
