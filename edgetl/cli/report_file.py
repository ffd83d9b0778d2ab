"""An option's file to write a report to, which must not be something else already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_SUFFIXES = (".json", ".xml", ".html", ".htm")


class ReportFile(click.Path):
    """A path that is free or holds an earlier report: not a photo, a model, or part of a bundle."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        path = super().convert(value, parameter, context)
        assert isinstance(path, Path)
        in_bundle = (path.parent / "manifest.json").exists()
        if in_bundle or (path.is_file() and path.suffix.lower() not in _SUFFIXES):
            what = "lies in a bundle" if in_bundle else "exists and is no report"
            self.fail(f"{path} {what}; name another file.", parameter, context)
        return path
