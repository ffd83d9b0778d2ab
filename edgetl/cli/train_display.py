"""What a training run looks like on a terminal: tables, a progress bar, a line for each epoch."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from edgetl.cli.printable import printable
from edgetl.cli.progress_bar import clock
from edgetl.data.image_folder import ImageFolders
from edgetl.training.config.listener import Listener, StepReport

_MANY_CLASSES = 30  # above, only the sums are shown


class _Unfailing:
    """A stream that takes what can't be written for written: a run must not end because its terminal or its log's disk did."""

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
        stream = cast("IO[str]", _Unfailing(sys.stderr)) if sys.stderr else None
        self._console = Console(file=stream, highlight=False, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._what, self._began = "", (0.0, 0)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def found(self, folders: ImageFolders) -> None:
        """The classes and their photos."""
        table = Table("class", "train", "val", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        if len(folders.classes) <= _MANY_CLASSES:
            for name, train, val in zip(
                folders.classes, folders.train_counts, folders.val_counts, strict=True
            ):
                table.add_row(escape(printable(name)), f"{train:,}", f"{val:,}")
        table.add_row(
            f"{len(folders.classes)} classes",
            f"{len(folders.train):,}",
            f"{len(folders.val):,}",
            style="bold",
        )
        self._console.print(table)

    def note(self, sentence: str) -> None:
        """Something that the user should know."""
        lines = "\n".join(printable(line) for line in sentence.split("\n"))
        self._console.print(f"[yellow]note:[/] {escape(lines)}", soft_wrap=True)

    def stopping(self, sentence: str) -> None:
        """Where Ctrl-C seems to do nothing."""
        self._console.print(sentence)

    def working(self, what: str, done: int, total: int) -> None:
        """A step before or after training, as a bar."""
        if what != self._what:
            self._began = time.monotonic(), done
        since, first = self._began
        left = (time.monotonic() - since) / max(done - first, 1) * (total - done)
        detail = f"{done:,} of {total:,}" + (
            f"  {clock(left)} left" if first < done < total else ""
        )
        self._show(what, done, total, detail if total else "")

    def step(self, report: StepReport) -> None:
        """An epoch in the making, as a bar."""
        detail = (
            f"loss {report.loss:.3f}  accuracy {report.accuracy:.1%}  "
            f"{_rate(report.images_per_second)}  {clock(report.seconds_left)} left"
        )
        self._show(f"Epoch {report.epoch}/{report.epochs}", report.step, report.steps, detail)

    def epoch(self, row: dict[str, Any]) -> None:
        """One line for an epoch that is done, or for the solved head before them."""
        judged = f"val loss {row['val_loss']:7.4f}  val accuracy {row['val_accuracy']:7.2%}"
        line = f"{'solved head':<41}  {judged}"
        if row["epoch"]:
            trained = f"loss {row['train_loss']:7.4f}  accuracy {row['train_accuracy']:7.2%}"
            line = f"epoch {row['epoch']:>3}  {trained:>30}  {judged}  {_rate(row['images_per_second'])}"
        self._console.print(line, soft_wrap=True)

    def _show(self, what: str, done: int, total: int, detail: str) -> None:
        if self._task is None or what != self._what:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._what = (
                self._progress.add_task(what, total=total or None, detail=detail),
                what,
            )
        self._progress.update(self._task, completed=done, total=total or None, detail=detail)


def _rate(images_per_second: float) -> str:
    return f"{images_per_second:,.{0 if images_per_second >= 10 else 1}f} images/s"
