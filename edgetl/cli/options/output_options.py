"""Where a command writes to, and in which form it prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON to standard output instead of text."
)


def output_option(
    text: str, *, required: bool = True, kind: click.Path | None = None
) -> Callable[[Command], Command]:
    """-o, --out or --output, with ``text`` as its help; by default, of the type ``SomePath``."""
    from edgetl.cli.options.option_types import SomePath  # edgetl info does without

    names = ("-o", "--out", "--output", "out")
    return click.option(*names, required=required, type=kind or SomePath(), help=text)
