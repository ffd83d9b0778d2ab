"""The accuracy that ``edgetl predict`` ends with, where the photos' labels are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgetl.runtime.images.photo_list import ListedPhoto
    from edgetl.runtime.images.photo_places import StoredPlace
    from edgetl.runtime.inference.prediction import Result


class PredictionAccuracy:
    """Accuracy, if a list or a folder gives every photo a label; see ``true_label``."""

    def __init__(
        self,
        labels: tuple[str, ...],
        names: Sequence[str],
        arguments: Sequence[str | ListedPhoto | StoredPlace],
        root: Path | None,
    ) -> None:
        """``names`` were given to the command, ``arguments`` are these with the lists read."""
        from edgetl.runtime.images.photo_list import ListedPhoto
        from edgetl.runtime.images.photo_places import StoredPlace, label_folders
        from edgetl.runtime.images.photo_shards import is_shard

        self._labels, self._photos, self._correct = frozenset(labels), 0, 0
        self._known = "-" not in names
        self._folders = label_folders(names, root)
        self._given = {
            argument.path: argument.label
            for argument in arguments
            if isinstance(argument, ListedPhoto)
        }
        self._source = "the list" if self._given else "the shards"
        self._has_labels = any(self._given.values())
        self._has_shards = any(
            isinstance(argument, StoredPlace) and is_shard(argument.name) for argument in arguments
        )

    def expect(self, photo: Path) -> Path:
        """Remember the label of a photo in a shard until it is classified; returns the photo."""
        label: str | None = getattr(photo, "label", None)
        if label is not None:
            self._given[photo], self._has_labels = label, True
        return photo

    def add(self, result: Result) -> str | None:
        """Count a photo that was classified; returns its true label, None without one."""
        from edgetl.runtime.images.photo_places import known_label
        from edgetl.runtime.images.stored_path import as_place

        photo = as_place(result.source)
        truth = known_label(photo, self._given.pop(photo, None), self._folders, self._labels)
        if not isinstance(result, Exception):
            self._known = self._known and truth is not None
            self._photos += 1
            self._correct += truth == result.label
        return truth

    def add_counts(self, photos: int, labelled: int, correct: int) -> None:
        """Count photos that were classified elsewhere, so many of them with a true label.

        Whether shards or folders gave the labels is not known then.
        """
        if self._has_shards and not self._has_labels:
            self._source, self._has_labels = "shards or folders", True
        self._known = self._known and labelled == photos
        self._photos += photos
        self._correct += correct

    def print(self, which: str = "") -> None:
        """Print it to standard error, since standard output is for predictions only."""
        if self._known and self._photos:
            share = f"{self._correct / self._photos:.2%}"
            counts = f"{self._correct:,} of {self._photos:,}"
            by = "folder names as true labels"
            if self._has_labels:
                by = f"the labels of {self._source} as true ones"
            click.echo(f"Accuracy {share} ({counts}), taking {by}{which}", err=True)
