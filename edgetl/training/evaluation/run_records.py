"""What a run leaves to read besides the weights: rows for epochs and for photos, the final figures, TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgetl.errors import MissingDependencyError
from edgetl.runtime.results.records import csv_line, plain_name
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import (
    EVENTS,
    HISTORY,
    LABEL_ISSUES_TABLE,
    METRICS,
    VALIDATION_TABLE,
)

COLUMNS = (
    "epoch",
    "lr",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "images_per_second",
    "seconds",
)

_TAGS = {name: name.replace("_", "/", 1) for name in COLUMNS if name.startswith(("train_", "val_"))}


class PhotoResult(NamedTuple):
    """What a photo is called below the data folder, its label, what it was taken for, and how surely, 0..1."""

    file: str
    label: str
    answer: str
    confidence: float


def write_history(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All epochs so far, as CSV; epoch 0 is the solved head, of which nothing was trained yet."""
    write_table(folder / HISTORY, COLUMNS, ([row[name] for name in COLUMNS] for row in rows))


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """The final figures, as JSON."""
    text = json.dumps(dict(metrics), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(folder / METRICS, lambda path: path.write_text(text, encoding="utf-8"))


def write_photo_tables(
    folder: Path, answers: Iterable[PhotoResult], doubts: Sequence[PhotoResult]
) -> None:
    """Tables of every validation photo, and of every training photo whose label is doubtful if there are any, in the order
    that they come."""
    write_table(folder / VALIDATION_TABLE, PhotoResult._fields, map(_cells, answers))
    if doubts:
        write_table(folder / LABEL_ISSUES_TABLE, PhotoResult._fields, map(_cells, doubts))


def _cells(row: PhotoResult) -> list[str]:
    return [plain_name(row.file), row.label, row.answer, f"{row.confidence:.6f}"]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows below the names of their columns, as CSV."""
    content = b"".join(map(csv_line, (columns, *rows)))
    write_atomically(path, lambda part: part.write_bytes(content))


def summary_writer() -> Any:
    """torch's class that writes TensorBoard's events. Raises MissingDependencyError where TensorBoard isn't installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError("tensorboard", "--tensorboard", "tensorboard") from error
    return SummaryWriter


class Events:
    """TensorBoard events below ``folder/tensorboard``. Raises MissingDependencyError where it isn't installed."""

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
        """history: rows whose events are there already; later ones, of a run that was killed, are taken back."""
        self._writer = summary_writer()(
            str(folder / EVENTS), purge_step=history[-1]["epoch"] + 1 if history else 0
        )

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One row of the history."""
        for name in COLUMNS[1:]:
            if row[name] is not None:
                self._writer.add_scalar(_TAGS.get(name, name), row[name], row["epoch"])
        self._writer.flush()
