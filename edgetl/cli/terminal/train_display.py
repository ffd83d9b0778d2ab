"""A training run on a terminal: a table of classes, a progress bar, a line for each epoch."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import IO, Any, cast

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from edgetl.cli.terminal.rich_console import open_console
from edgetl.cli.terminal.terminal_text import printable_lines
from edgetl.data.image_folder import ImageFolders
from edgetl.system.message_text import counted, enumerated, printable
from edgetl.system.progress_line import clock
from edgetl.training.config.listener import Listener, StepReport

_MANY_CLASSES = 30  # above, only the sums are shown


class _NeverFailing:
    """A stream that ignores failed writes: a run outlives its terminal and a full log disk."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Display(Listener):
    """Writes to standard error; bars only where that is a terminal."""

    def __init__(self) -> None:
        stream = cast("IO[str]", _NeverFailing(sys.stderr)) if sys.stderr else None
        self._console = open_console(file=stream)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._title, self._began = "", (0.0, 0)

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def photos_found(self, folders: ImageFolders) -> None:
        """The classes, and how many files there are."""
        names = enumerated(folders.classes)
        photos = counted(len(folders.train) + len(folders.val), "photo")
        self._console.print(escape(f"{photos} of {len(folders.classes)} classes: {names}"))

    def photos_read(self, folders: ImageFolders) -> None:
        """How many photos of each class can be used, and how many can't be read."""
        counts = {"train": folders.train_counts, "val": folders.val_counts}
        if folders.unreadable:
            counts["can't be read"] = folders.unreadable_counts
        table = Table("class", *counts, box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        if len(folders.classes) <= _MANY_CLASSES:
            for name, *numbers in zip(folders.classes, *counts.values(), strict=True):
                table.add_row(escape(printable(name)), *(f"{number:,}" for number in numbers))
        sums = (f"{sum(numbers):,}" for numbers in counts.values())
        table.add_row(f"{len(folders.classes)} classes", *sums, style="bold")
        self._console.print(table)
        if not folders.has_val_folder:
            self._console.print(f"Validated on: {folders.val_share:.1%} of the photos")

    def note(self, sentence: str) -> None:
        """Something that the user should know."""
        text = escape(printable_lines(sentence))
        self._console.print(f"[yellow]note:[/] {text}", soft_wrap=True)

    def stopping(self, sentence: str) -> None:
        """Ctrl-C takes effect later: what happens until then."""
        self._console.print(sentence)

    def progress(self, step: str, done: int, total: int, /) -> None:
        """A step before or after training, as a bar."""
        if step != self._title:
            self._began = time.monotonic(), done
        since, first = self._began
        detail = f"{done:,} of {total:,}" if total else ""
        if first < done < total:
            left = (time.monotonic() - since) / (done - first) * (total - done)
            detail += f"  {clock(left)} left"
        self._show(step, done, total, detail)

    def step(self, report: StepReport) -> None:
        """The current epoch, as a bar."""
        detail = (
            f"loss {report.loss:.3f}  accuracy {report.accuracy:.1%}  "
            f"{_rate(report.images_per_second)}  {clock(report.seconds_left)} left"
        )
        self._show(f"Epoch {report.epoch}/{report.epochs}", report.step, report.steps, detail)

    def epoch(self, row: dict[str, Any]) -> None:
        """One line for an epoch that is done, or for the fitted head before the first."""
        validated = f"val loss {row['val_loss']:7.4f}  val accuracy {row['val_accuracy']:7.2%}"
        line = f"{'solved head':<41}  {validated}"
        if row["epoch"]:
            trained = f"loss {row['train_loss']:7.4f}  accuracy {row['train_accuracy']:7.2%}"
            rate = _rate(row["images_per_second"])
            line = f"epoch {row['epoch']:>3}  {trained:>30}  {validated}  {rate}"
        self._console.print(line, soft_wrap=True)

    def _show(self, title: str, done: int, total: int, detail: str) -> None:
        if self._task is not None and title != self._title:
            self._bar.remove_task(self._task)
            self._task = None
        if self._task is None:
            self._task = self._bar.add_task(title, total=total or None, detail=detail)
            self._title = title
        self._bar.update(self._task, completed=done, total=total or None, detail=detail)


def _rate(images_per_second: float) -> str:
    return f"{images_per_second:,.{0 if images_per_second >= 10 else 1}f} images/s"
