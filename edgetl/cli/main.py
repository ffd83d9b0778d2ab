"""The ``edgetl`` program: runs a command and turns errors into exit codes.

0: done. 1: it failed, or the answer is no. 2: wrong usage. 130: interrupted. SIGTERM ends it by
that signal; only training, which saves its state first, exits with 130.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

import click

from edgetl._version import __version__
from edgetl.cli import INTERRUPTED, process
from edgetl.cli.command_group import CommandGroup
from edgetl.system.message_text import printable


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgetl")
def command() -> None:
    """Photos in, an image classifier out that answers the same on the device as in training."""


def main() -> None:
    """The ``edgetl`` program."""
    process.prepare()
    try:
        code = _run()
    except BaseException:  # an import that was interrupted may raise something else
        if not process.is_interrupted():
            raise
        code = _interrupted()
    process.end(code)


def _run() -> int:
    """Run the command line; report errors on stderr and return the exit code."""
    try:
        command(prog_name="edgetl", standalone_mode=False)
        sys.stdout.flush()
        process.exit_on_signal(0)
        return 0
    except click.ClickException as error:
        process.exit_on_signal(error.exit_code)
        with suppress(OSError):  # the terminal may be closed, or the log's disk full
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except RecursionError:
        click.echo("Error: these folders or values are nested too deeply.", err=True)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        sys.stderr.close()
    except OSError as error:
        message, where = error.strerror or error, error.filename
        if error.errno in (errno.ENOSPC, errno.EFBIG):
            text = printable(f"{where or 'the output'} can't be written: {message}.")
            click.echo(f"Error: {text}", err=True)
            os._exit(1)  # without trying again to write what is left in the buffers
        text = printable(f"{where}: {message}." if where else f"{message}.")
        click.echo(f"Error: {text}", err=True)
    return 1


def _interrupted() -> int:
    process.exit_on_signal(INTERRUPTED)
    click.echo("Interrupted.", err=True)
    return INTERRUPTED


if __name__ == "__main__":
    main()
