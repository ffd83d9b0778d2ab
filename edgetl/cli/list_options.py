"""The options of the commands that take a list of photos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgetl.cli.option_types import SomePath

Command = TypeVar("Command", bound=Callable[..., Any])


def list_options(command: Command) -> Command:
    """Add --columns and --root, which say how to read a list of photos."""
    for option in (
        click.option(
            "--root",
            type=SomePath(),
            help="Folder that the paths in a list are relative to. [default: the list's]",
        ),
        click.option(
            "--columns",
            metavar="ROLE=NAME[,…]",
            help="Columns of a list with other names: path=FILE,label=CLASS,split=PART.",
        ),
    ):
        command = option(command)
    return command
