"""Types of options and arguments, stricter than click's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from edgetl.runtime.bundle.bundle_folder import ONNX_FILES
from edgetl.runtime.images.stored_path import as_place, is_address

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


class PhotoPlace(click.Path):
    """The name of photos: a file or folder that exists, shards, or an address in a store."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        from edgetl.runtime.images.photo_shards import is_pattern, is_shard

        name = os.fspath(value)
        if is_address(name) or (is_pattern(name) and is_shard(name)):
            return as_place(name)
        return super().convert(value, parameter, context)


class SomePath(click.Path):
    """A ``Path`` that need not exist, but is not empty.

    An empty one, as from a shell variable that is not set, would mean the current folder. It may
    also be an address in a store.
    """

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        if not os.fspath(value):
            self.fail("The name is empty.", parameter, context)
        if isinstance(value, str) and is_address(value):
            return as_place(value)
        return super().convert(value, parameter, context)
