"""The options of the commands that take a list of photos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgetl.cli.options.option_types import SomePath
from edgetl.runtime.images.photo_list import COLUMNS_HELP, ROOT_HELP

Command = TypeVar("Command", bound=Callable[..., Any])


def list_options(command: Command) -> Command:
    """Add --columns and --root, which say how to read a list of photos."""
    command = click.option("--root", type=SomePath(), help=ROOT_HELP)(command)
    return click.option("--columns", metavar="ROLE=NAME[,…]", help=COLUMNS_HELP)(command)
