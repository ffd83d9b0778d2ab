"""A folder of labelled photos for a network whose labels are known already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetl.data.image_folder import Sample
from edgetl.data.layout import content_digest
from edgetl.errors import DataError
from edgetl.runtime.images.discovery import class_folder, find_images

_LISTED = 5  # names in a message


def scan_labelled(folder: Path, labels: Sequence[str]) -> tuple[Sample, ...]:
    """The photos below ``folder``, each in a folder that is named like one of ``labels``.

    Raises DataError if there is none, or if a photo lies in no such folder or can't be opened.
    """
    folder = folder.absolute()
    photos = find_images(folder)
    if not photos:
        raise DataError(f"{folder} holds no photos.", "Name a folder of class folders with photos.")
    indices = {label: index for index, label in enumerate(labels)}
    truths = [class_folder(photo, folder, indices) for photo in photos]
    strange = sorted(
        {
            photo.parent.relative_to(folder).as_posix()
            for photo, truth in zip(photos, truths, strict=True)
            if truth is None
        }
    )
    if strange:
        more = f" and {len(strange) - _LISTED:,} more" if len(strange) > _LISTED else ""
        raise DataError(
            f"{folder} holds photos in folders that are named like no label: "
            f"{', '.join(strange[:_LISTED])}{more}.",
            f"Name the class folders like the labels: {', '.join(labels[:_LISTED])}"
            f"{' …' if len(labels) > _LISTED else ''}",
        )
    try:
        return tuple(
            Sample(photo, indices[truth], content_digest(photo))
            for photo, truth in zip(photos, truths, strict=True)
            if truth is not None
        )
    except OSError as error:
        raise DataError(f"{error.filename} can't be read: {error.strerror}.") from error
