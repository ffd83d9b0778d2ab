"""Types of options and arguments, stricter than click's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from edgetl.runtime.bundle.bundle_folder import ONNX_FILES

PRECISIONS = click.Choice(list(ONNX_FILES))


class Number(click.FloatRange):
    """A ``FloatRange`` that refuses "nan", too, which click's comparisons let through."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        number = super().convert(value, parameter, context)
        if number != number:
            self.fail(f"{value} is not a number.", parameter, context)
        return number


class SomePath(click.Path):
    """A ``Path`` that need not exist, but is not empty.

    An empty one, as from a shell variable that is not set, would mean the current folder.
    """

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self,
        value: str | os.PathLike[str],
        parameter: click.Parameter | None,
        context: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("The name is empty.", parameter, context)
        return super().convert(value, parameter, context)
