"""What a run records besides its weights: epochs, photos, final metrics, TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.errors import MissingDependencyError
from edgetl.runtime.results.records import csv_line, plain_name
from edgetl.system.paths import name_below
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import (
    EVENTS,
    HISTORY,
    LABEL_ISSUES_TABLE,
    METRICS,
    VALIDATION_TABLE,
)
from edgetl.training.head.label_issues import LabelIssue

HISTORY_COLUMNS = (
    "epoch",
    "lr",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "images_per_second",
    "seconds",
)

LABEL_ERROR = "label_error"
"""The column of the table of label issues that is not in that of the validation photos."""

_TAGS = {
    name: name.replace("_", "/", 1)
    for name in HISTORY_COLUMNS
    if name.startswith(("train_", "val_"))
}


class PhotoResult(NamedTuple):
    """A photo's path below the data folder, its label, the predicted label, its confidence 0..1.

    Then the SHA-256 of its file (hex). The names of the fields are the columns of the CSV files.
    """

    file: str
    label: str
    answer: str
    confidence: float
    sha256: str

    @classmethod
    def of(
        cls, folders: ImageFolders, sample: Sample, answer: int, confidence: float
    ) -> PhotoResult:
        """That of a photo of ``folders``; ``answer`` is the index of a class."""
        return cls(
            name_below(sample.path, folders.root),
            folders.classes[sample.label],
            folders.classes[answer],
            float(confidence),
            sample.digest,
        )


def validation_rows(folders: ImageFolders, probabilities: NDArray[np.float32]) -> list[PhotoResult]:
    """Every validation photo: the most confident mistakes first, the most confident hits last."""
    answers = zip(folders.val, probabilities.argmax(1), probabilities.max(1), strict=True)
    rows = [PhotoResult.of(folders, *answer) for answer in answers]

    def place(row: PhotoResult) -> tuple[bool, float]:
        is_right = row.answer == row.label
        return is_right, row.confidence if is_right else -row.confidence

    return sorted(rows, key=place)


def label_issue_rows(
    folders: ImageFolders, label_issues: Iterable[LabelIssue]
) -> list[tuple[PhotoResult, float]]:
    """Training photos, each with the probability that its label is wrong."""
    return [
        (PhotoResult.of(folders, folders.train[photo], predicted, confidence), label_error)
        for photo, predicted, confidence, label_error in label_issues
    ]


def write_history(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write all epochs so far as CSV; epoch 0 is a fitted head, before any training."""
    write_table(
        folder / HISTORY, HISTORY_COLUMNS, ([row[name] for name in HISTORY_COLUMNS] for row in rows)
    )


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write the final metrics as JSON."""
    text = json.dumps(dict(metrics), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(folder / METRICS, lambda path: path.write_text(text, encoding="utf-8"))


def write_photo_tables(
    folder: Path,
    validation: Iterable[PhotoResult],
    label_issues: Sequence[tuple[PhotoResult, float]],
) -> None:
    """Write tables of all validation photos, and of training photos with label issues, if any.

    label_issues  with the probability that the label is wrong, 0..1
    """
    write_table(folder / VALIDATION_TABLE, PhotoResult._fields, map(_cells, validation))
    if label_issues:
        rows = ([*_cells(row), f"{label_error:.6f}"] for row, label_error in label_issues)
        write_table(folder / LABEL_ISSUES_TABLE, (*PhotoResult._fields, LABEL_ERROR), rows)


def _cells(row: PhotoResult) -> list[str]:
    return [plain_name(row.file), row.label, row.answer, f"{row.confidence:.6f}", row.sha256]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with a header. Raises CheckpointError."""
    content = b"".join(map(csv_line, (columns, *rows)))
    write_atomically(path, lambda part: part.write_bytes(content))


def summary_writer() -> Any:
    """torch's SummaryWriter class. Raises MissingDependencyError without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError("tensorboard", "--tensorboard", "tensorboard") from error
    return SummaryWriter


class Events:
    """TensorBoard events in ``folder/tensorboard``. Raises MissingDependencyError without it."""

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
        """history: rows written before; later events, of a run that was killed, are hidden."""
        next_epoch = history[-1]["epoch"] + 1 if history else 0
        self._writer = summary_writer()(str(folder / EVENTS), purge_step=next_epoch)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write one row of the history."""
        for name in HISTORY_COLUMNS[1:]:
            if row[name] is not None:
                self._writer.add_scalar(_TAGS.get(name, name), row[name], row["epoch"])
        self._writer.flush()
