"""``last.pt``: where a run stands, so that it can go on as if it had never stopped."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgetl.errors import CheckpointError, first_line
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import LAST, require_begun
from edgetl.training.evaluation.validation import Scores

_SCHEMA = 8
_KEYS = {
    *(
        "settings",
        "scanned",
        "fingerprint",
        "left_out",
        "spec",
        "levels",
        "notes",
        "threads",
        "batches",
        "doubts",
    ),
    *("standing", "learner"),
}


@dataclass
class TrainState:
    """Where a run stands, besides the weights.

    epoch, step       the next one to do; both count from 0, a step is one of the optimizer
    loss, right, seen  sums over the photos of the epoch so far
    seconds           spent on training so far, over all parts of an interrupted run
    begun             how many of them before the first step; None before it
    warm              how many when warm-up was over; None before
    history           the rows of history.csv: one for each epoch done, and for a solved head before them
    best, best_epoch  the scores of the kept weights, and the epoch that they are from (from 1; 0: the beginning)
    midway            they are half-way between the beginning and that epoch
    gain, gain_epoch  the best scores and their epoch without the beginning: training first loses some of what a solved head
                      knows, and then gains
    ended             no epoch is left to do
    finished          nothing is left to do
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    seen: float = 0.0
    seconds: float = 0.0
    begun: float | None = None
    warm: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Scores | None = None
    best_epoch: int = 0
    midway: bool = False
    gain: Scores | None = None
    gain_epoch: int = 0
    ended: bool = False
    finished: bool = False

    @property
    def kept(self) -> str:
        """What the kept weights are told apart by."""
        return f"{self.best_epoch}-midway" if self.midway else str(self.best_epoch)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """What ``to_dict`` gave."""
        found = {
            name: Scores(**values[name]) if values[name] else None for name in ("best", "gain")
        }
        return cls(**{**values, **found})


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values as ``folder/last.pt``, whole or not at all. Raises CheckpointError."""
    write_atomically(
        folder / LAST, lambda temporary: torch.save({"schema": _SCHEMA, **state}, temporary)
    )


def read_state(folder: Path) -> dict[str, Any]:
    """What ``write_state`` wrote, on the CPU. Raises CheckpointError if there is none, or it can't be read."""
    path = require_begun(folder)
    try:
        if not path.is_file():
            raise ValueError("it is no regular file")  # a pipe would be waited for
        with zipfile.ZipFile(path) as archive:  # torch writes checksums into it and looks at none
            if archive.testzip() is not None:
                raise ValueError("it is damaged, its checksums do not fit")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be read: {error.strerror or error}.", "See that it can be read."
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        # torch's advice would be to run what is in the file.
        reason = (
            "it holds what no run writes" if "weights_only" in str(error) else first_line(error)
        )
        raise CheckpointError(
            f"{path} can't be read: {reason}.", "Start again with --overwrite."
        ) from error
    if not isinstance(state, dict) or state.get("schema") != _SCHEMA or not state.keys() >= _KEYS:
        raise CheckpointError(
            f"{path} was written by another version of edgetl.", "Start again with --overwrite."
        )
    return state
