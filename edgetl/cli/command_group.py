"""The commands of ``edgetl``, each imported from its own file when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword

import click

from edgetl.cli import CommandFailed
from edgetl.errors import EdgetlError
from edgetl.system.missing_package import missing_package

COMMANDS = (
    "bench",
    "candidates",
    "check",
    "data",
    "drift",
    "evaluate",
    "explain",
    "export",
    "import",
    "info",
    "predict",
    "selftest",
    "serve",
    "train",
)
"""``edgetl NAME`` is ``command`` in ``edgetl/cli/NAME.py``, or ``NAME_.py`` for a keyword."""


class CommandGroup(click.Group):
    """A group that imports a command when it is needed, and shows the library's errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = f"{name}_" if iskeyword(name) else name
        command: click.Command = import_module(f"edgetl.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: Sequence[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and (close := get_close_matches(args[0], COMMANDS, 1)):
            ctx.fail(f"There is no command {args[0]!r}. Did you mean {close[0]}?")
        return super().resolve_command(ctx, list(args))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except EdgetlError as error:
            raise CommandFailed(str(error)) from error
        except ModuleNotFoundError as error:
            missing = missing_package(error, f"edgetl {ctx.invoked_subcommand}")
            raise CommandFailed(str(missing)) from error
