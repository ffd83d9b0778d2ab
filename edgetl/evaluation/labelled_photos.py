"""Photos with their true labels, as class folders give them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.data.layout import normalized_name
from edgetl.errors import DataError
from edgetl.runtime.images.discovery import class_folder, find_images

_LISTED = 5  # names in a sentence


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos whose true labels are known.

    root        the folder that names in reports are relative to
    photos      (file, true label) of each
    unlabelled  folder below ``root`` → number of photos in it that have no label of the model
    """

    root: Path
    photos: tuple[tuple[Path, str], ...]
    unlabelled: Mapping[str, int]


def find_labelled_photos(folder: str | os.PathLike[str], labels: Sequence[str]) -> LabelledPhotos:
    """The photos below ``folder`` that are in a folder named like one of ``labels``.

    Raises DataError if there is none, or if a folder can't be read.
    """
    root = Path(folder)
    if not os.fspath(folder) or not root.is_dir():
        raise DataError(
            f"{folder or 'The empty name'} is not a folder.",
            "Name the folder that holds one folder of photos for each class.",
        )
    known, photos, unlabelled = frozenset(labels), [], Counter[str]()
    for path in find_images(root):
        truth = class_folder(path, root, known)
        if truth is None:
            unlabelled[path.relative_to(root).parts[0] if path.parent != root else "."] += 1
        else:
            photos.append((path, truth))
    if not unlabelled and not photos:
        raise DataError(f"There is no photo in {root}.", "Name a folder that holds some.")
    if not photos:
        raise DataError(
            f"No photo in {root} is in a folder named like a label of the model "
            f"({enumerated(labels)}); its folders: {enumerated(sorted(unlabelled))}.",
            _similar_names(unlabelled, labels) or "Rename the folders as the labels.",
        )
    return LabelledPhotos(root, tuple(photos), dict(unlabelled))


def unlabelled_warning(unlabelled: Mapping[str, int], labels: Sequence[str]) -> str:
    """A sentence about the photos that don't count."""
    photos = sum(unlabelled.values())
    names = enumerated([f"{name} ({count:,})" for name, count in sorted(unlabelled.items())])
    sentence = (
        f"{photos:,} {'photo is' if photos == 1 else 'photos are'} in no folder named like a label "
        f"of the model and left out: {names}."
    )
    return " ".join(filter(None, (sentence, _similar_names(unlabelled, labels))))


def enumerated(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _similar_names(folders: Mapping[str, int], labels: Sequence[str]) -> str:
    """A question about folders that are nearly named like a label, or ""."""
    similar = {normalized_name(label): label for label in labels}
    pairs = [
        f"{name!a} for {similar[normalized_name(name)]!a}"
        for name in sorted(folders)
        if normalized_name(name) in similar
    ]
    return f"Is {enumerated(pairs)} a misspelling?" if pairs else ""
