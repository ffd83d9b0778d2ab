"""The accuracy that ``edgetl predict`` ends with, where the photos' labels are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgetl.errors import ImageError, PredictionError
    from edgetl.runtime.images.photo_list import ListedPhoto
    from edgetl.runtime.images.photo_places import StoredPlace
    from edgetl.runtime.inference.prediction import Prediction


class Accuracy:
    """Accuracy, if a list or a folder gives every photo a label; see ``true_label``."""

    def __init__(
        self,
        labels: tuple[str, ...],
        names: Sequence[str],
        arguments: Sequence[str | ListedPhoto | StoredPlace],
        root: Path | None,
    ) -> None:
        """``names`` were given to the command, ``arguments`` are these with the lists read."""
        from edgetl.runtime.images.discovery import is_folder
        from edgetl.runtime.images.photo_list import ListedPhoto, is_photo_list
        from edgetl.runtime.images.photo_places import is_stored, photos_folder

        self._labels, self._photos, self._correct = frozenset(labels), 0, 0
        self._known = "-" not in names
        self._roots = [
            photos_folder(name, root)
            for name in names
            if is_folder(Path(name)) or is_photo_list(name) or is_stored(name)
        ]
        self._given = {
            argument.path: argument.label
            for argument in arguments
            if isinstance(argument, ListedPhoto)
        }
        self._source = "the list" if self._given else "the shards"
        self._has_labels = any(self._given.values())

    def expect(self, photo: Path) -> Path:
        """Remember the label of a photo in a shard until it is classified; returns the photo."""
        label: str | None = getattr(photo, "label", None)
        if label is not None:
            self._given[photo], self._has_labels = label, True
        return photo

    def add(self, result: Prediction | ImageError | PredictionError) -> str | None:
        """Count a photo that was classified; returns its true label, None without one."""
        from edgetl.runtime.images.photo_list import true_label
        from edgetl.runtime.images.stored_path import as_place

        photo = as_place(result.source)
        root = next((root for root in self._roots if photo.is_relative_to(root)), photo.parent)
        truth = true_label(photo, self._given.pop(photo, None), root, self._labels)
        if not isinstance(result, Exception):
            self._known = self._known and truth is not None
            self._photos += 1
            self._correct += truth == result.label
        return truth

    def print(self, which: str = "") -> None:
        """Print it to standard error, since standard output is for predictions only."""
        if self._known and self._photos:
            share = f"{self._correct / self._photos:.2%}"
            counts = f"{self._correct:,} of {self._photos:,}"
            by = "folder names as true labels"
            if self._has_labels:
                by = f"the labels of {self._source} as true ones"
            click.echo(f"Accuracy {share} ({counts}), taking {by}{which}", err=True)
