"""The option type of a report's file, which must not replace a photo, a model or a run's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgetl.runtime.bundle.bundle_folder import MANIFEST
from edgetl.training.config.run_folder import BEST, LAST, METRICS, REPORT

_SUFFIXES = (".json", ".xml", ".html", ".htm")


class ReportFile(click.Path):
    """A path that is free or holds an earlier report."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        path = super().convert(value, parameter, context)
        assert isinstance(path, Path)
        in_bundle = (path.parent / MANIFEST).exists()
        is_run = any((path.parent / name).exists() for name in (BEST, LAST))
        in_run = is_run and path.name in (METRICS, REPORT)
        if in_bundle or in_run or (path.is_file() and path.suffix.lower() not in _SUFFIXES):
            reason = "exists and is not a report"
            if in_bundle:
                reason = "lies in a bundle"
            elif in_run:
                reason = "belongs to a training run"
            self.fail(f"{path} {reason}; name another file.", parameter, context)
        return path
