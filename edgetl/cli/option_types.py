"""What options and arguments take, where click's own types would let a mistake through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from edgetl.runtime.bundle import MANIFEST, ONNX_FILES
from edgetl.training.run_folder import BEST, LAST, METRICS, REPORT

PRECISIONS = click.Choice(list(ONNX_FILES))

_REPORTS = (".json", ".xml", ".html", ".htm")


class Number(click.FloatRange):
    """A ``FloatRange`` that also refuses "nan", which passes every comparison with its ends."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        number = super().convert(value, parameter, context)
        if number != number:
            self.fail(f"{value} is not a number.", parameter, context)
        return number


class SomePath(click.Path):
    """A ``Path``, there or not; an empty one, as from a variable that nobody set, would mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: str | os.PathLike[str], parameter: click.Parameter | None, context: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("The name is empty.", parameter, context)
        return super().convert(value, parameter, context)


class ReportFile(click.Path):
    """A path that is free or holds an earlier report: not a photo, a model, or part of a bundle or a run."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        path = super().convert(value, parameter, context)
        assert isinstance(path, Path)
        in_bundle = (path.parent / MANIFEST).exists()
        in_run = any((path.parent / name).exists() for name in (BEST, LAST)) and path.name in (METRICS, REPORT)
        if in_bundle or in_run or (path.is_file() and path.suffix.lower() not in _REPORTS):
            what = "lies in a bundle" if in_bundle else "is a run's own" if in_run else "exists and is no report"
            self.fail(f"{path} {what}; name another file.", parameter, context)
        return path
