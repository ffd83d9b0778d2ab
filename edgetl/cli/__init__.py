"""The ``edgetl`` command; one file a subcommand."""

import click

from edgetl.cli.terminal.terminal_text import printable_lines

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells report it."""


class CommandFailed(click.ClickException):
    """A command failed; what the message repeats may come from an untrusted bundle."""

    def __init__(self, message: str) -> None:
        super().__init__(printable_lines(message))


class NothingCompared(CommandFailed):
    """Nothing could be compared. An exit code of 1 would say that something differs."""

    exit_code = 2
