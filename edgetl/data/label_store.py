"""Where the labels of photos are, and how one is changed: in class folders, or in a list."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Protocol

from edgetl.data.layout import TRAIN
from edgetl.data.photo_source import PhotoSource
from edgetl.data.review_log import MOVE, UNDO, Decision, ReviewLog
from edgetl.errors import DataError
from edgetl.runtime.results.records import csv_line
from edgetl.system.atomic_write import atomic_write
from edgetl.system.paths import name_below


class LabelStore(Protocol):
    """The labels of photos, whose files are named relative to one folder."""

    def has(self, file: str, label: str) -> bool:
        """Whether the photo is there and has the label."""

    def owns(self, decision: Decision) -> bool:
        """Whether a move, or its undo, is one of these photos: the log may be of others, too."""

    def change(self, file: str, label: str, new_label: str, digest: str) -> Decision:
        """The decision that gives a photo a new label. Raises DataError if it can't have that."""

    def change_back(self, decision: Decision) -> Decision:
        """The decision that takes back another."""

    def carry_out(self, decision: Decision) -> None:
        """Do what was decided and logged. Raises OSError, and changes nothing then.

        decision  with a ``to``
        """

    def recover(self) -> None:
        """Make the log and the labels agree, if the program was killed between the two."""

    def file_after(self, decision: Decision) -> str:
        """The photo's file after ``decision``."""


class FolderLabels:
    """The label of a photo is its class folder, and a new one moves it. No file is replaced."""

    def __init__(self, folder: Path, log: ReviewLog) -> None:
        """folder: it holds the class folders, or train/ with them."""
        self._folder, self._log = folder, log

    def has(self, file: str, label: str) -> bool:
        return _class_part(file, label) is not None and (self._folder / file).is_file()

    def owns(self, decision: Decision) -> bool:
        ends = (decision.file, decision.label), (decision.to, decision.new_label)
        return all(_class_part(file, label) is not None for file, label in ends)

    def change(self, file: str, label: str, new_label: str, digest: str) -> Decision:
        parts, at = PurePosixPath(file).parts, _class_part(file, label)
        assert at is not None
        to = "/".join((*parts[:at], new_label, *parts[at + 1 :]))
        if _class_part(to, new_label) is None:
            raise DataError(f"{new_label!r} can't be the name of a class folder.", "Skip it.")
        return Decision(MOVE, file, label, digest, new_label, self._free(to))

    def change_back(self, decision: Decision) -> Decision:
        is_there = os.path.lexists(self._folder / decision.to)
        to = self._free(decision.file) if is_there else ""
        return replace(_swapped(decision), file=decision.to, to=to)

    def carry_out(self, decision: Decision) -> None:
        source, target = self._folder / decision.file, self._folder / decision.to
        target.parent.mkdir(parents=True, exist_ok=True)
        target.open("xb").close()  # takes the name, if it is free
        try:
            source.replace(target)
        except OSError:
            target.unlink()
            raise

    def recover(self) -> None:
        """A photo that was not moved stays where it is, and the decision is taken back."""
        last = self._log.decisions[-1] if self._log.decisions else None
        if last is None or not (self.owns(last) and os.path.lexists(self._folder / last.file)):
            return
        target = self._folder / last.to
        if target.is_file() and not target.stat().st_size:  # only its name was taken
            target.unlink()
        if not os.path.lexists(target):
            self._log.take_back_last()

    def file_after(self, decision: Decision) -> str:
        return decision.to or decision.file

    def _free(self, file: str) -> str:
        return next(name for name in _names(file) if not os.path.lexists(self._folder / name))


class ListLabels:
    """The labels are in a list, which stays as it is: a copy beside it has the corrected ones."""

    def __init__(self, source: PhotoSource, log: ReviewLog) -> None:
        """Raises DataError for a list that can't be read."""
        self._source, self._log = source, log
        self._photos = source.photos()
        self._labels = {self._file(photo.path): photo.label for photo in self._photos}

    def has(self, file: str, label: str) -> bool:
        return self._labels.get(file) == label

    def owns(self, decision: Decision) -> bool:
        copies = re.escape(str(self._source.path.with_suffix(".reviewed"))) + r"(-\d+)?\.csv"
        return re.fullmatch(copies, decision.to) is not None

    def change(self, file: str, label: str, new_label: str, digest: str) -> Decision:
        return Decision(MOVE, file, label, digest, new_label, self._copy())

    def change_back(self, decision: Decision) -> Decision:
        return _swapped(decision)

    def carry_out(self, decision: Decision) -> None:
        standing = self._log.standing.values()
        corrected = {found.file: found.new_label for found in standing if found.to == decision.to}
        columns = ["path", "label"] + ["split"] * any(photo.split for photo in self._photos)
        rows = (
            (photo.name, corrected.get(self._file(photo.path), photo.label), photo.split)
            for photo in self._photos
        )
        lines = [csv_line(columns), *(csv_line(row[: len(columns)]) for row in rows)]
        atomic_write(Path(decision.to), lambda part: part.write_bytes(b"".join(lines)))

    def recover(self) -> None:
        """The copy is written again, unless the log is of another list."""
        if self._log.decisions and self._log.decisions[-1].to == self._copy():
            self.carry_out(self._log.decisions[-1])

    def file_after(self, decision: Decision) -> str:
        return decision.file

    def _file(self, path: Path) -> str:
        return name_below(path, self._source.folder)

    def _copy(self) -> str:
        """The name of the corrected list: one that the log has already, or one that is free."""
        known = {decision.to for decision in self._log.decisions}
        names = _names(str(self._source.path.with_suffix(".reviewed.csv")))
        return next(name for name in names if name in known or not os.path.lexists(name))


def _class_part(file: str, label: str) -> int | None:
    """The number of the part of a path that is the class folder, from 0; None if none is."""
    parts = PurePosixPath(file).parts
    if ".." in parts or "\0" in file or PurePath(label).name != label:
        return None
    if parts[:2] == (TRAIN, label):
        return 1
    return 0 if parts[:1] == (label,) else None


def _swapped(decision: Decision) -> Decision:
    return replace(decision, action=UNDO, label=decision.new_label, new_label=decision.label)


def _names(file: str) -> Iterator[str]:
    """``file``, and then names like it: a.jpg, a-2.jpg, a-3.jpg …"""
    path = PurePosixPath(file)
    yield file
    for number in itertools.count(2):
        yield str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
