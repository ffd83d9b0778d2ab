"""What mkdocs does to a page before it renders it: put the commands' help where a page asks for it.

The help is read from click at build time, so that it is written down once, in edgetl/cli.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import cleandoc
from typing import Any

import click

from edgetl.cli.main import command as program
from edgetl.cli.train import EVERY_OPTION

COMMANDS_MARKER = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    if COMMANDS_MARKER in markdown:
        return markdown.replace(COMMANDS_MARKER, command_reference())
    return markdown


def command_reference() -> str:
    """Every command as Markdown: what it does, how it is called, examples, options."""
    return "\n\n".join(_section(name, command) for name, command in commands(program, "edgetl"))


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below ``group`` with its full name, in alphabetical order."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


class OptionLists(click.HelpFormatter):
    """Collects the option lists of a help text instead of laying them out for a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[tuple[str, list[tuple[str, str]]]] = []

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        self.sections.append((name, []))
        yield

    def write_dl(self, rows: Sequence[tuple[str, str]], *_: Any, **__: Any) -> None:
        self.sections[-1][1].extend(rows)


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    context.meta[EVERY_OPTION] = True
    description, _, examples = cleandoc(command.help or "").partition("\b\nExample:\n")
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lists = OptionLists()
    command.format_options(context, lists)
    parts = [
        f"## {name}",
        description.strip(),
        f"```text\n{usage}\n```",
        "For example:",
        f"```text\n{cleandoc(examples)}\n```",
    ]
    for heading, rows in lists.sections:
        parts.append(f"**{heading}**")
        parts += [f"`{option}`\n:   {_escaped(text)}" for option, text in rows]
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    """Brackets and angle brackets of a help text are no links and no HTML."""
    return re.sub(r"[\[\]*_]", r"\\\g<0>", html.escape(text, quote=False))
