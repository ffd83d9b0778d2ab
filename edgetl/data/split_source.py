"""What is to be split: the files of class folders or of a list, their classes and new places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgetl.data.inspection import walk_files
from edgetl.data.layout import UNSPLIT, class_names, is_ignored, name_error, too_few_classes
from edgetl.data.photo_source import PhotoSource, too_few_labels
from edgetl.errors import DataError
from edgetl.runtime.images.photo_list import ListedPhoto, require_files
from edgetl.system.paths import real_path

ARCHIVE_FOLDER = "PetImages"  # what the cats-and-dogs archive unpacks to, beside its licence


@dataclass(frozen=True)
class SplitSource:
    """Files to split.

    path     the folder of class folders, or the list
    root     the folder that the files' names are relative to
    classes  sorted
    files    all files, also those in no class
    labels   file → class, of those in one
    places   file → where it goes below a part's folder, of those in a class
    """

    path: Path
    root: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Mapping[Path, str]
    places: Mapping[Path, PurePosixPath]


def find_files_to_split(source: PhotoSource) -> SplitSource:
    """The files of ``source``. Raises DataError for what can't be split."""
    return _in_list(source) if source.is_list else _in_folders(source)


def _in_folders(source: PhotoSource) -> SplitSource:
    root = real_path(source.path)
    if set(source.folder_parts()) != {UNSPLIT}:
        raise DataError(
            f"{root} is split already: it has train/ and val/.", "Train on it as it is."
        )
    names = class_names(root)
    if names == [ARCHIVE_FOLDER]:
        root = root / ARCHIVE_FOLDER
        names = class_names(root)
    for error in (too_few_classes(root, names), *map(name_error, names)):
        if error is not None:
            raise error
    files = tuple(walk_files(root, 1))
    # With its subfolders, so that equal names don't collide.
    places = {path: PurePosixPath(path.relative_to(root)) for path in files if path.parent != root}
    labels = {path: place.parts[0] for path, place in places.items()}
    return SplitSource(root, root, tuple(names), files, labels, places)


def _in_list(source: PhotoSource) -> SplitSource:
    parts = source.listed_parts()
    if set(parts) != {UNSPLIT}:
        raise DataError(
            f"{source.path} says already which photos are for which part.",
            "Train on it as it is, or have it split anew: --columns split=",
        )
    photos = parts[UNSPLIT]
    require_files(source.path, photos)
    labels = {photo.path: str(photo.label) for photo in photos}
    classes = sorted(set(labels.values()))
    for error in (too_few_labels(source.path, classes), *map(_folder_error, classes)):
        if error is not None:
            raise error
    return SplitSource(
        source.path, source.folder, tuple(classes), tuple(labels), labels, _places(photos)
    )


def _folder_error(label: str) -> DataError | None:
    """Why no class folder can have the name ``label``."""
    if is_ignored(label) or any(character in label for character in "/\\\0"):
        return DataError(
            f"No folder for photos can have the name of the label {label!r}.",
            "Write another label into the list, or train on the list itself.",
        )
    return name_error(label)


def _places(photos: Iterable[ListedPhoto]) -> dict[Path, PurePosixPath]:
    """``label/name``, with a number in the name where photos from several folders have the same."""
    places: dict[Path, PurePosixPath] = {}
    taken = dict[str, int]()  # place, in any case → the highest number that was added to its name
    for photo in photos:
        place = first = PurePosixPath(str(photo.label), photo.path.name)
        key = str(first).casefold()
        number = taken.get(key, 1)
        while str(place).casefold() in taken:
            number += 1
            place = first.with_stem(f"{first.stem}-{number}")
        taken[key] = number
        taken[str(place).casefold()] = 1
        places[photo.path] = place
    return places
