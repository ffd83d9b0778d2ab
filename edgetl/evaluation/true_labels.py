"""Photos with their true labels, as class folders or a list give them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.data.image_folder import Sample
from edgetl.data.layout import PART_OF, TEST, content_digest, normalized_name
from edgetl.data.stored_labels import part_of
from edgetl.errors import DataError
from edgetl.runtime.images.photo_list import true_label
from edgetl.runtime.images.photo_places import is_stored, no_photo_in, photos_folder, photos_in
from edgetl.runtime.images.stored_path import as_place, is_address
from edgetl.system.message_text import enumerated
from edgetl.system.paths import is_there


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos whose true labels are known.

    root        the folder that names in reports are relative to
    photos      (file, true label) of each
    unlabelled  folder below ``root``, or label in a list → number of its photos: none of the
                model's labels
    """

    root: Path
    photos: tuple[tuple[Path, str], ...]
    unlabelled: Mapping[str, int]


def find_labelled_photos(
    images: str | os.PathLike[str],
    labels: Sequence[str],
    *,
    columns: str | Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> LabelledPhotos:
    """The photos of a folder or list that have one of ``labels``.

    A list may have a column of labels; else, and in a folder, the folders' names are the labels. Of
    a list that marks some photos as test, these are taken.

    columns, root  of a list; see ``read_photo_list``

    Raises DataError if there is no such photo, or if the folder or the list can't be read.
    """
    place = as_place(images)
    is_known = is_address(images) or is_stored(images)  # reading it tells whether it is there
    if not os.fspath(images) or not (is_known or is_there(place)):
        raise DataError(
            f"There is no {images or 'folder of an empty name'}.",
            "Name a folder that holds one folder of photos for each class, or a list of photos.",
        )
    base, found = photos_folder(place, root), photos_in(place, columns=columns, root=root)
    # So the list of a training run gives the photos that were kept aside.
    tests = [
        photo for photo in found if PART_OF.get((part_of(photo) or "").strip().lower()) == TEST
    ]
    found = tests or found
    known, photos, unlabelled = frozenset(labels), [], Counter[str]()
    for photo in found:
        truth = true_label(photo.path, photo.label, base, known)
        if truth is not None:
            photos.append((photo.path, truth))
        else:
            unlabelled[photo.label or _outermost_folder(photo.path, base)] += 1
    if not found:
        raise no_photo_in(place)
    if not photos:
        names = ["no folder" if name == "." else name for name in sorted(unlabelled)]
        raise DataError(
            f"No photo of {place} has a label of the model ({enumerated(labels)}); "
            f"its folders or labels: {enumerated(names)}.",
            _similar_names(unlabelled, labels)
            or "Name the class folders like the model's labels, or give a list with such labels.",
        )
    return LabelledPhotos(base, tuple(photos), dict(unlabelled))


def labelled_samples(
    images: str | os.PathLike[str],
    labels: Sequence[str],
    columns: str | Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> tuple[Sample, ...]:
    """All photos of a folder or list as samples whose labels are indices into ``labels``.

    Raises DataError as ``find_labelled_photos`` does, and for photos with another label.
    """
    place, root = as_place(images).absolute(), as_place(root).absolute() if root else None
    found = find_labelled_photos(place, labels, columns=columns, root=root)
    if found.unlabelled:
        raise DataError(
            f"{images} holds photos with other labels than the network's: "
            f"{enumerated(sorted(found.unlabelled))}.",
            _similar_names(found.unlabelled, labels) or f"Its labels: {enumerated(labels)}.",
        )
    indices = {label: index for index, label in enumerate(labels)}
    try:
        return tuple(
            Sample(path, indices[label], content_digest(path)) for path, label in found.photos
        )
    except OSError as error:
        raise DataError(f"{error.filename} can't be read: {error.strerror}.") from error


def unlabelled_warning(unlabelled: Mapping[str, int], labels: Sequence[str]) -> str:
    """A sentence about the photos that don't count."""
    photos = sum(unlabelled.values())
    names = enumerated([f"{name} ({count:,})" for name, count in sorted(unlabelled.items())])
    sentence = (
        f"{photos:,} {'photo has' if photos == 1 else 'photos have'} no label of the model and "
        f"{'is' if photos == 1 else 'are'} left out: {names}."
    )
    return " ".join(filter(None, (sentence, _similar_names(unlabelled, labels))))


def _outermost_folder(photo: Path, root: Path) -> str:
    """That below ``root``; "." if ``photo`` lies in none."""
    folders = photo.relative_to(root).parts[:-1] if photo.is_relative_to(root) else ()
    return folders[0] if folders else "."


def _similar_names(folders: Iterable[str], labels: Sequence[str]) -> str:
    """A question about names that are nearly those of a label, or ""."""
    similar = {normalized_name(label): label for label in labels}
    pairs = [
        f"{name!a} for {similar[normalized_name(name)]!a}"
        for name in sorted(folders)
        if normalized_name(name) in similar
    ]
    return f"Is {enumerated(pairs)} a misspelling?" if pairs else ""
