"""``last.pt``: the state of a run, from which it can be resumed as if it had never stopped."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgetl.data.image_folder import ImageFolders
from edgetl.errors import CheckpointError, first_line
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import LAST, require_resumable
from edgetl.training.engine.training_setup import TrainingSetup
from edgetl.training.evaluation.validation import Scores

_SCHEMA = 10
_KEYS = {
    "settings",
    "scanned",
    "fingerprint",
    "left_out",
    "spec",
    "levels",
    "notes",
    "threads",
    "batches",
    "label_issues",
    "train_state",
    "learner",
}


@dataclass
class TrainState:
    """The position of a run, and what it has found so far, without the weights.

    epoch, step          the next to do, from 0; a step is one of the optimizer
    loss, right, seen    sums over the photos of the epoch so far
    seconds              spent so far, over all parts of an interrupted run
    training_began       the seconds spent before the first step; None before it
    warmup_ended         the seconds spent until warm-up was over; None before
    history              the rows of history.csv: for a fitted head, and for each epoch done
    best                 the scores of the kept weights
    best_epoch           their epoch, from 1; 0: those that training began with
    midway               they are half-way between the beginning and that epoch
    best_trained         the best scores of an epoch, without the beginning: training first loses
                         some of what a fitted head knows, and then improves
    best_trained_epoch   the epoch of these, from 1
    ended                no epoch is left to do
    finished             nothing is left to do
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    seen: float = 0.0
    seconds: float = 0.0
    training_began: float | None = None
    warmup_ended: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Scores | None = None
    best_epoch: int = 0
    midway: bool = False
    best_trained: Scores | None = None
    best_trained_epoch: int = 0
    ended: bool = False
    finished: bool = False

    @property
    def candidate(self) -> str:
        """The name of the kept weights' file while it waits for this state to be saved."""
        return f"{self.best_epoch}-midway" if self.midway else str(self.best_epoch)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """Read what ``to_dict`` returned."""
        found = {
            name: Scores(**values[name]) if values[name] else None
            for name in ("best", "best_trained")
        }
        return cls(**{**values, **found})


def run_identity(
    context: RunContext, folders: ImageFolders, setup: TrainingSetup
) -> dict[str, Any]:
    """Plain values that are saved with each state: what a resumed run must find, and needs to know.

    folders  with the photos that can't be read
    """
    readable = {sample.digest for sample in setup.folders.train}
    return {
        "settings": context.settings.to_dict(),
        "scanned": folders.fingerprint,
        "fingerprint": setup.folders.fingerprint,
        "left_out": sorted({sample.digest for sample in folders.train} - readable),
        "spec": setup.backbone.spec.to_dict(),
        "levels": setup.backbone.levels,
        "notes": context.listener.notes,
        "threads": torch.get_num_threads(),
        "batches": setup.sampler.batches,
        "trials": [asdict(trial) for trial in context.trials],
        "label_issues": [tuple(issue) for issue in setup.label_issues],
    }


def write_state(folder: Path, saved: Mapping[str, Any]) -> None:
    """Write tensors and plain values to ``folder/last.pt`` atomically. Raises CheckpointError."""
    write_atomically(
        folder / LAST, lambda temporary: torch.save({"schema": _SCHEMA, **saved}, temporary)
    )


def read_state(folder: Path) -> dict[str, Any]:
    """What ``write_state`` wrote, on the CPU.

    Raises CheckpointError if there is none, or it can't be read.
    """
    require_resumable(folder)
    path = folder / LAST
    try:
        if not path.is_file():
            raise ValueError("it is no regular file")  # reading a pipe would block
        with zipfile.ZipFile(path) as archive:  # torch writes checksums, but checks none
            if archive.testzip() is not None:
                raise ValueError("it is damaged, its checksums do not fit")
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be read: {error.strerror or error}.", "Check that it can be read."
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        # torch's own message advises to run the code in the file.
        foreign = "weights_only" in str(error)
        reason = "it was not written by edgetl" if foreign else first_line(error)
        raise CheckpointError(
            f"{path} can't be read: {reason}.", "Start again with --overwrite."
        ) from error
    if not isinstance(saved, dict) or saved.get("schema") != _SCHEMA or not saved.keys() >= _KEYS:
        raise CheckpointError(
            f"{path} was written by another version of edgetl.", "Start again with --overwrite."
        )
    return saved
