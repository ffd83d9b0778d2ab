"""The class and the part of photos in shards and stores, where these do not say them: by names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from edgetl.data.layout import PART_OF, UNKNOWN
from edgetl.errors import DataError
from edgetl.runtime.images.photo_list import ListedPhoto
from edgetl.runtime.images.photo_shards import SHARD_SUFFIXES
from edgetl.runtime.images.stored_path import StoredPath


def labelled_by_place(photos: Iterable[ListedPhoto]) -> list[ListedPhoto]:
    """The photos, each with its label, and either all or none with their part.

    A label is what the shard says, or else the name of the outermost folder, as in a data folder.
    A part is what the shard says, or else a word in the shard's name ("train-0001.tar"), or the
    folder around the class folders. Those of ``unknown/`` beside parts are in a part "unknown".

    Raises DataError for a photo without a label, and for photos in no part beside others.
    """
    found = [_completed(photo) for photo in photos]
    if not any(photo.split for photo in found):
        return found
    parted = [
        replace(photo, split=UNKNOWN) if not photo.split and photo.label == UNKNOWN else photo
        for photo in found
    ]
    for photo in parted:
        if not photo.split:
            raise DataError(
                f"{photo.name} is in no part, though others are in one.",
                "Name train, val or test in its shard's name, or give it a column or key split.",
            )
    return parted


def part_of(photo: ListedPhoto) -> str | None:
    """What the photo's shard or list says, or a word in the shard's name, as written."""
    if photo.split is not None:
        return photo.split
    words = (word for name in _shard_and_folders(photo) for word in re.split(r"[^A-Za-z]+", name))
    return next((word for word in words if word.lower() in PART_OF), None)


def _shard_and_folders(photo: ListedPhoto) -> tuple[str, ...]:
    """Names of the folders around the photo's shard, and its own; () outside of shards."""
    folders = PurePosixPath(photo.name).parts[:-1]
    shards = [i for i, name in enumerate(folders, 1) if name.lower().endswith(SHARD_SUFFIXES)]
    return folders[: shards[0]] if shards and isinstance(photo.path, StoredPath) else ()


def _completed(photo: ListedPhoto) -> ListedPhoto:
    inside = list(PurePosixPath(photo.name).parts[len(_shard_and_folders(photo)) : -1])
    part = part_of(photo)
    if part is None and inside and inside[0].lower() in PART_OF:
        part = inside.pop(0)
    label = photo.label or next(iter(inside), None)
    if label is None:
        raise DataError(
            f"{photo.name} has no label.",
            "Put a member with it beside the photo (1.cls beside 1.jpg), name the column with "
            "--columns label=COLUMN, or put photos into folders named as their classes.",
        )
    return replace(photo, label=label, split=part)
