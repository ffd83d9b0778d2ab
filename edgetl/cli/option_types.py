"""What options and arguments take, where click's own types would let a mistake through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from edgetl.runtime.bundle.bundle_folder import ONNX_FILES

PRECISIONS = click.Choice(list(ONNX_FILES))


class Number(click.FloatRange):
    """A ``FloatRange`` that also refuses "nan", which passes every comparison with its ends."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        number = super().convert(value, parameter, context)
        if number != number:
            self.fail(f"{value} is not a number.", parameter, context)
        return number


class SomePath(click.Path):
    """A ``Path``, there or not; an empty one, as from a variable that nobody set, would mean the current folder."""

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
