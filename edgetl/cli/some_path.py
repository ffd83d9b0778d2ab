"""A path that is there: an empty one, as from a variable that nobody set, would mean the current folder."""

from __future__ import annotations

import os
from pathlib import Path

import click


class SomePath(click.Path):
    """``click.Path`` that refuses an empty name and gives a ``Path``."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: str | os.PathLike[str], parameter: click.Parameter | None, context: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("The name is empty.", parameter, context)
        return super().convert(value, parameter, context)
