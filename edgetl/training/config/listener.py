"""Callbacks of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgetl.data.image_folder import ImageFolders
from edgetl.system.progress import Progress


@dataclass(frozen=True)
class StepReport:
    """The position of a run within an epoch.

    epoch, step    how many have begun or are done, from 1
    epochs, steps  how many there are, of steps in an epoch
    loss           mean over the photos of the epoch so far
    accuracy       the same, 0..1
    seconds_left   of the run
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float
    seconds_left: float


class Listener:
    """The callbacks of a run; these do nothing. Called by one thread at a time, and waited for."""

    def photos_found(self, folders: ImageFolders) -> None:
        """Classes and photos were found; none is decoded yet."""

    def photos_read(self, folders: ImageFolders) -> None:
        """Photos were decoded: ``folders`` has those to train and to validate on."""

    def note(self, sentence: str) -> None:
        """Something that the user should know."""

    def stopping(self, sentence: str) -> None:
        """Ctrl-C or SIGTERM arrived; ``sentence`` says what happens next. Called at any moment."""

    def progress(self, step: str, done: int, total: int, /) -> None:
        """The progress of a step before or after training; see ``edgetl.system.progress``."""

    def step(self, report: StepReport) -> None:
        """An optimizer step is done; called a few times a second at most."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is done and validated; ``row`` is its row of history.csv."""


class ProgressListener(Listener):
    """Reports what takes time to one progress callback; an epoch is a step of its own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def progress(self, step: str, done: int, total: int, /) -> None:
        """A step before or after training."""
        self._progress(step, done, total)

    def step(self, report: StepReport) -> None:
        """Steps of one epoch."""
        self._progress(f"Epoch {report.epoch}/{report.epochs}", report.step, report.steps)


class RecordingListener(Listener):
    """Passes everything on, and records the notes for the report.

    notes  those of the interrupted run that this one resumes
    """

    def __init__(self, listener: Listener, notes: Sequence[str] = ()) -> None:
        self.notes = list(notes)
        self._passed_on, self._photos_were_read = set[str](), False
        self._listener = listener
        self.photos_found = listener.photos_found  # type: ignore[method-assign]
        self.step = listener.step  # type: ignore[method-assign]
        self.epoch = listener.epoch  # type: ignore[method-assign]
        self.progress = listener.progress  # type: ignore[method-assign]
        self.stopping = listener.stopping  # type: ignore[method-assign]

    def photos_read(self, folders: ImageFolders) -> None:
        """Pass it on the first time: after a head was fitted, photos are decoded once more."""
        if not self._photos_were_read:
            self._photos_were_read = True
            self._listener.photos_read(folders)

    def note(self, sentence: str) -> None:
        """Record it, and pass it on the first time."""
        if sentence not in self._passed_on:
            self._passed_on.add(sentence)
            self._listener.note(sentence)
        if sentence not in self.notes:
            self.notes.append(sentence)
