"""The option type of a report's file, which must not replace a photo, a model or a run's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from edgetl.errors import EdgetlError
from edgetl.runtime.bundle.bundle_folder import MANIFEST
from edgetl.system.atomic_write import write_report_file
from edgetl.system.paths import real_path

Result = TypeVar("Result")


class ReportFile(click.Path):
    """A path that is free or holds an earlier report."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        path = super().convert(value, parameter, context)
        assert isinstance(path, Path)
        reason = None
        if (path.parent / MANIFEST).exists():
            reason = "lies in a bundle"
        elif _is_of_a_run(path):
            reason = "belongs to a training run"
        elif path.is_file() and not _is_report(path):
            reason = "exists and is not a report"
        if reason is not None:
            self.fail(f"{path} {reason}; name another file.", parameter, context)
        return path


def _is_of_a_run(path: Path) -> bool:
    from edgetl.training.config import run_folder as names

    is_run = any((path.parent / name).exists() for name in (names.BEST, names.LAST))
    return is_run and path.name in (
        names.METRICS,
        names.REPORT,
        names.HISTORY,
        names.VALIDATION_TABLE,
        names.LABEL_ISSUES_TABLE,
        names.COMPARISON,
    )


def _is_report(path: Path) -> bool:
    """Whether the file ``path`` may be an earlier report. A table may be a list of photos."""
    suffix = path.suffix.lower()
    if suffix != ".csv":
        return suffix in (".json", ".xml", ".html", ".htm")
    from edgetl.evaluation.evaluation_reports import EVALUATION_COLUMNS

    try:
        with path.open("rb") as file:
            return file.readline().strip() in (b"", ",".join(EVALUATION_COLUMNS).encode())
    except OSError:
        return False


def given_files(**files: Path | None) -> dict[str, Path]:
    """The reports that were asked for: kind → file. Raises UsageError for a file named twice."""
    given = {kind: path for kind, path in files.items() if path is not None}
    if len(set(map(real_path, given.values()))) < len(given):
        *first, last = (f"--{kind}" for kind in files)
        raise click.UsageError(f"{', '.join(first)} and {last} each need a file of their own.")
    return given


@contextmanager
def written_reports(
    result: Result, files: Mapping[str, Path], writers: Mapping[str, Callable[[Result], str]]
) -> Iterator[None]:
    """Write ``files`` (kind → path) before the block prints ``result``: a closed pipe may end that.

    After the block, say where they are, or raise the first error; the others are still written.
    """
    unwritten = None
    for kind, path in files.items():
        try:
            write_report_file(path, writers[kind](result))
        except EdgetlError as error:
            unwritten = unwritten or error
    yield
    if unwritten is not None:
        raise unwritten
    for kind, path in files.items():
        click.echo(f"{kind}: {path}", err=True)
