"""What a run leaves to read besides the weights: a row for each epoch, the final figures, TensorBoard events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgetl.errors import MissingDependencyError
from edgetl.training.run_folder import EVENTS, HISTORY, METRICS
from edgetl.training.writing import write_atomically

COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_second", "seconds")

_TAGS = {name: name.replace("_", "/", 1) for name in COLUMNS if name.startswith(("train_", "val_"))}


def write_history(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All epochs so far, as CSV; epoch 0 is the solved head, of which nothing was trained yet."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / HISTORY, lambda path: path.write_text(text.getvalue(), encoding="utf-8", newline=""))


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """The final figures, as JSON."""
    text = json.dumps(dict(metrics), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(folder / METRICS, lambda path: path.write_text(text, encoding="utf-8"))


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
        self._writer = summary_writer()(str(folder / EVENTS), purge_step=history[-1]["epoch"] + 1 if history else 0)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One row of the history."""
        for name in COLUMNS[1:]:
            if row[name] is not None:
                self._writer.add_scalar(_TAGS.get(name, name), row[name], row["epoch"])
        self._writer.flush()
