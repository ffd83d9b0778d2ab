"""What a training run tells whoever watches it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgetl.data.image_folder import ImageFolders


@dataclass(frozen=True)
class StepReport:
    """Where a run stands within an epoch; ``loss`` and ``accuracy`` (0..1) are means over the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float
    seconds_left: float


class Listener:
    """Told what happens; this one keeps it to itself. Called by one thread at a time: be quick."""

    def found(self, folders: ImageFolders) -> None:
        """Classes and photos, before any of them is decoded."""

    def note(self, sentence: str) -> None:
        """Something that the user should know."""

    def stopping(self, sentence: str) -> None:
        """Ctrl-C, or a polite kill, has come: what happens until the end. Called between any two things that happen."""

    def working(self, what: str, done: int, total: int) -> None:
        """How far a step before or after training is; 0 of 0: not counted."""

    def step(self, report: StepReport) -> None:
        """A step is done; told a few times a second at most."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is done and validated; the values of one row of history.csv."""


class Remembering(Listener):
    """Passes everything on, and remembers the notes for the report, with those of an interrupted run's earlier parts."""

    def __init__(self, listener: Listener, notes: Sequence[str] = ()) -> None:
        self.notes = list(notes)
        self._told = set[str]()  # in this part of the run
        self.found, self.working = listener.found, listener.working  # type: ignore[method-assign]
        self.step, self.epoch = listener.step, listener.epoch  # type: ignore[method-assign]
        self.stopping = listener.stopping  # type: ignore[method-assign]
        self._listener = listener

    def note(self, sentence: str) -> None:
        """Remember it, and pass it on if it is new."""
        if sentence not in self._told:
            self._told.add(sentence)
            self._listener.note(sentence)
        if sentence not in self.notes:
            self.notes.append(sentence)


class Counter:
    """Counts in one step before training, from any thread."""

    def __init__(self, listener: Listener, what: str, total: int) -> None:
        self._listener, self._what, self._total, self._done = listener, what, total, 0
        self._one_at_a_time = threading.Lock()
        listener.working(what, 0, total)

    def __call__(self) -> None:
        """One more."""
        with self._one_at_a_time:
            self._done += 1
            self._listener.working(self._what, self._done, self._total)
