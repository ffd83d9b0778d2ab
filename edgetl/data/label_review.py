"""A review of labels that are likely wrong: each is corrected or kept, and nothing else changes.

In a folder, the label of a photo is its class folder, so the photo is moved to another one. In a
list, it is corrected in a copy beside the list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetl.data.label_store import FolderLabels, LabelStore, ListLabels
from edgetl.data.layout import content_digest
from edgetl.data.photo_source import PhotoSource
from edgetl.data.review_log import KEEP, MOVE, UNDO, Decision, ReviewLog
from edgetl.errors import DataError
from edgetl.runtime.images.stored_path import is_address
from edgetl.system.paths import name_below

OPEN = "open"
KEPT = "kept"
MOVED = "moved"


@dataclass(frozen=True)
class DoubtfulPhoto:
    """A photo whose label is likely wrong.

    file         relative to the folder of the photos, with slashes; elsewhere, absolute
    label        its label
    answer       the label that was predicted
    label_error  the probability that the label is wrong, 0..1
    """

    file: str
    label: str
    answer: str
    label_error: float


@dataclass(frozen=True)
class ReviewItem:
    """A photo of a review.

    path       where it is now
    state      "open", "kept" or "moved"
    new_label  of a moved one
    """

    photo: DoubtfulPhoto
    path: Path
    state: str = OPEN
    new_label: str = ""


class LabelReview:
    """The decisions on doubtful photos, of now and of earlier reviews with the same log.

    labels   the classes
    items    the photos, without those that are gone or have another label now
    missing  how many these are
    """

    def __init__(
        self,
        source: PhotoSource,
        labels: Sequence[str],
        photos: Sequence[DoubtfulPhoto],
        log: ReviewLog,
    ) -> None:
        """Find the photos, and make up for a decision that was logged and not carried out.

        Raises DataError for a list that can't be read or corrected.
        """
        if source.is_stored or is_address(source.path):
            raise DataError(
                f"The photos are in {source.path}, and nothing is changed in shards and stores.",
                "Split them into a folder first: edgetl data split SRC DST",
            )
        self.labels = tuple(labels)
        self._source, self._folder, self._log = source, source.folder, log
        self._store: LabelStore = (
            ListLabels(source, log) if source.is_list else FolderLabels(source.folder, log)
        )
        try:
            self._store.recover()
        except OSError as error:
            raise DataError(
                f"{error.filename} can't be written: {error.strerror}.", "Check its rights."
            ) from error
        self.items = list(self._find(photos))
        self.missing = len(photos) - len(self.items)

    @property
    def counts(self) -> Counter[str]:
        """How many photos are in each state."""
        return Counter(item.state for item in self.items)

    @property
    def corrected(self) -> Path | None:
        """The data with the corrected labels, a folder or a list; None if none was corrected."""
        moves = [found for found in self._standing.values() if found.action == MOVE]
        if not moves:
            return None
        return Path(moves[-1].to) if self._source.is_list else self._source.path

    def keep(self, index: int) -> None:
        """The label is right. Raises DataError for a photo that is not open or can't be read."""
        item, digest = self._open_item(index)
        self._log.append(Decision(KEEP, self._file(item), item.photo.label, digest))
        self._set(index, state=KEPT)

    def move(self, index: int, label: str) -> None:
        """The label should be ``label``.

        Raises DataError for a photo that is not open, for what is not another class, and if the
        label can't be changed; nothing is changed then.
        """
        item, digest = self._open_item(index)
        if label not in self.labels or label == item.photo.label:
            raise DataError(f"{label!r} is not another class.", "Choose one of the list.")
        decision = self._store.change(self._file(item), item.photo.label, label, digest)
        self._carry_out(decision)
        self._set(index, state=MOVED, new_label=label, path=self._path(decision))

    def undo(self) -> int | None:
        """Take back the last decision that stands, also one of an earlier review.

        Returns the index of its photo; None if that is not among ``items``. Raises DataError if
        there is no decision, or it can't be taken back.
        """
        standing = self._standing
        if not standing:
            raise DataError("There is nothing to undo.")
        number, last = list(standing.items())[-1]
        undo = self._store.change_back(last) if last.action == MOVE else replace(last, action=UNDO)
        self._carry_out(replace(undo, undoes=number))
        for index, item in enumerate(self.items):
            if (item.path, item.photo.label) == (self._path(last), last.label):
                self._set(index, state=OPEN, new_label="", path=self._path(undo))
                return index
        return None

    @property
    def _standing(self) -> dict[int, Decision]:
        """What can be taken back, by number: the run may have had other photos before."""
        return {
            number: decision
            for number, decision in self._log.standing.items()
            if decision.action == KEEP or self._store.owns(decision)
        }

    def _find(self, photos: Sequence[DoubtfulPhoto]) -> Iterator[ReviewItem]:
        """The photos that are still there, as they are now."""
        standing = self._log.standing.values()
        moves = {(found.file, found.label): found for found in standing if found.action == MOVE}
        kept = {(found.digest, found.label) for found in standing if found.action == KEEP}
        for photo in photos:
            move = moves.get((photo.file, photo.label))
            if move is not None and _content(self._path(move)) == move.digest:
                yield ReviewItem(photo, self._path(move), MOVED, move.new_label)
            elif self._store.has(photo.file, photo.label):
                path = self._folder / photo.file
                content = _content(path)
                yield ReviewItem(photo, path, KEPT if (content, photo.label) in kept else OPEN)

    def _path(self, decision: Decision) -> Path:
        """The photo after ``decision``."""
        return self._folder / self._store.file_after(decision)

    def _carry_out(self, decision: Decision) -> None:
        """Log ``decision``, then do it. Raises DataError; the log says so if it was not done."""
        self._log.append(decision)
        try:
            if decision.to:
                self._store.carry_out(decision)
        except OSError as error:
            self._log.take_back_last()
            raise DataError(
                f"{decision.file} can't be moved to {decision.to}: {error.strerror}.",
                "Check the rights of both folders, or skip it.",
            ) from error

    def _open_item(self, index: int) -> tuple[ReviewItem, str]:
        """An open photo, and the digest of its file."""
        if not 0 <= index < len(self.items) or self.items[index].state != OPEN:
            raise DataError("This photo is decided already.", "Reload the page.")
        item = self.items[index]
        digest = _content(item.path)
        if digest is None:
            raise DataError(f"{item.path} can't be read.", "Skip it.")
        return item, digest

    def _file(self, item: ReviewItem) -> str:
        return name_below(item.path, self._folder)

    def _set(self, index: int, **changes: Any) -> None:
        self.items[index] = replace(self.items[index], **changes)


def _content(path: Path) -> str | None:
    """The digest of a file, or None if it can't be read."""
    try:
        return content_digest(path)
    except (OSError, ValueError):  # a name with a null character
        return None
