"""The log of a review of labels: every decision, on the disk before it is carried out."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgetl.errors import DataError
from edgetl.system.file_lock import try_lock

MOVE, KEEP, UNDO = "move", "keep", "undo"
_BEGIN = b'{"action": "'  # of every line


@dataclass(frozen=True)
class Decision:
    """One line of the log.

    action     "move", "keep", or "undo" of an earlier one
    file       the photo, relative to the folder of the photos, before this
    label      its label before this
    digest     SHA-256 of its file (hex)
    new_label  its label after this, where that changes
    to         where that is done: its new file, or the list with the new label
    undoes     of an "undo": the number of the decision that it takes back, from 0
    time       of writing, in UTC, ISO 8601
    """

    action: str
    file: str
    label: str
    digest: str
    new_label: str = ""
    to: str = ""
    undoes: int | None = None
    time: str = ""


class ReviewLog:
    """JSON lines that are only appended to. A context that closes the file.

    decisions  all of them, in their order
    """

    def __init__(self, path: Path) -> None:
        """Read the log, or begin one; a last line that was only partly written is removed.

        Raises DataError if another process has it open, if it can't be written, or holds other
        lines than these; nothing is changed then.
        """
        self.path = path
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise DataError(
                f"{path} can't be written: {error.strerror}.", "Check the rights of its folder."
            ) from error
        try:
            self.decisions = self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ReviewLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def standing(self) -> dict[int, Decision]:
        """The moves and keeps that were not taken back, by their numbers, in their order."""
        undone: set[int | None] = set()
        for number, decision in reversed(list(enumerate(self.decisions))):
            if number not in undone:
                undone.add(decision.undoes)
        return {
            number: decision
            for number, decision in enumerate(self.decisions)
            if decision.action != UNDO and number not in undone
        }

    def append(self, decision: Decision) -> None:
        """Write ``decision`` to the disk. Raises DataError if that fails; it is then not taken."""
        decision = replace(decision, time=datetime.now(UTC).isoformat(timespec="seconds"))
        line = json.dumps(asdict(decision)).encode() + b"\n"
        begin = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(begin)
            raise DataError(
                f"{self.path} can't be written: {error.strerror}.", "Free some disk space."
            ) from error
        self.decisions.append(decision)

    def take_back_last(self) -> None:
        """Record that the last decision, which may be an undo, was not carried out."""
        number = len(self.decisions) - 1
        self.append(replace(self.decisions[number], action=UNDO, to="", undoes=number))

    def _read(self) -> list[Decision]:
        if try_lock(self._file.fileno()) is False:
            raise DataError(
                f"Another review has {self.path} open.", "Go on there, or stop it first."
            )
        self._file.seek(0)
        content = self._file.read()
        *lines, last = content.split(b"\n")
        decisions = [self._decision(number, line) for number, line in enumerate(lines, 1)]
        if last:
            try:
                decisions.append(self._decision(len(lines) + 1, last))
                self._file.write(b"\n")  # which an editor has left out
            except DataError as error:
                begins_like_one = last.startswith(_BEGIN) or _BEGIN.startswith(last)
                if not (begins_like_one and isinstance(error.__cause__, json.JSONDecodeError)):
                    raise
                self._file.truncate(len(content) - len(last))
        return decisions

    def _decision(self, number: int, line: bytes) -> Decision:
        """The decision in a line. Raises DataError."""
        try:
            found = Decision(**json.loads(line))
            texts = {**asdict(found), "undoes": ""}.values()
            if not all(isinstance(text, str) for text in texts):
                raise ValueError
            if found.action not in (MOVE, KEEP, UNDO) or not isinstance(found.undoes, int | None):
                raise ValueError
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"{self.path}, line {number}: not a decision of a review.",
                "Move the file away to begin another log.",
            ) from error
        return found
