"""The ``edgetl`` command; one file a subcommand."""

import click

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells report it."""


class NothingCompared(click.ClickException):
    """Nothing could be compared. An exit code of 1 would say that something differs."""

    exit_code = 2
