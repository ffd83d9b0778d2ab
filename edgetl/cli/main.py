"""The command group: finds each subcommand by its file, and turns the library's errors into exit codes.

0: done; 1: it failed, or the answer is no; 2: it was called wrongly; 130: interrupted. A polite kill ends it by that signal,
but for training, which saves where it stands: 130.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules

import click

from edgetl import cli
from edgetl._version import __version__
from edgetl.cli.missing_package import missing_package
from edgetl.cli.printable import printable
from edgetl.errors import EdgetlError

_SPINS = "10000"  # of a thread that waits, a thirtieth of the default: on a busy core it keeps away whom it waits for
_COLLECTED_EVERY = (
    10_000  # objects: at Python's 700 to 2,000 it takes a fifth of the time of importing torch
)


class CommandFolder(click.Group):
    """A group whose commands are the modules beside this one that hold a ``command``; imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for name in _module_names() if self.get_command(ctx, name) is not None)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _module_names():
            return None
        command = getattr(import_module(f"{cli.__name__}.{name}"), "command", None)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: Sequence[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = args[0] in _module_names() and self.get_command(ctx, args[0]) is not None
        if not known and (close := get_close_matches(args[0], self.list_commands(ctx), 1)):
            ctx.fail(f"There is no command {args[0]!r}. Did you mean {close[0]}?")
        return super().resolve_command(ctx, list(args))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except EdgetlError as error:  # it may speak of names in a stranger's bundle
            raise click.ClickException("\n".join(map(printable, str(error).split("\n")))) from error
        except ModuleNotFoundError as error:
            missing = missing_package(error, ctx.invoked_subcommand or "")
            raise click.ClickException(str(missing)) from error


def _module_names() -> set[str]:
    """Modules that may be commands: those of two words help one that is, and may need what a device does not have."""
    return {module.name for module in iter_modules(cli.__path__) if "_" not in module.name} - {
        "main"
    }


@click.group(
    cls=CommandFolder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgetl")
def command() -> None:
    """Photos in, an image classifier out that answers the same on the device as in training."""


def main() -> None:
    """The ``edgetl`` program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows its code
            stream.reconfigure(errors="backslashreplace")
    if (
        os.environ.get("COLUMNS") == "0"
    ):  # as some terminals say before they know; tables would be of no width
        del os.environ["COLUMNS"]
    gc.set_threshold(_COLLECTED_EVERY, *gc.get_threshold()[1:])
    spin_less()
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == usual:
            signal.signal(number, _interrupt)
    try:
        code = _run()
    except BaseException:
        if not _received:
            raise
        code = _interrupted()  # in the midst of an import, which says something else of it
    if (
        signal.SIGTERM in _received
    ):  # as whoever sent it expects, now that all is put away; process 1 goes on
        os.kill(os.getpid(), signal.SIGTERM)
    gc.freeze()  # or Python looks through all that torch imported before it ends: a second
    if _is_connected():
        with suppress(OSError, ValueError, AttributeError):  # full, closed, none
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def spin_less() -> None:
    """Let torch's waiting threads soon leave their cores to others, unless the user has said what they do. Only before torch
    is imported."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def _run() -> int:
    """Do what the command line asks for → the exit code, whatever went wrong being told."""
    try:
        if sys.stdout is None:
            raise click.ClickException(
                "Standard output is closed; send it to /dev/null if it is not wanted."
            )
        command(prog_name="edgetl", standalone_mode=False)
        sys.stdout.flush()
        return _end_with(0)
    except click.ClickException as error:
        _end_with(error.exit_code)
        with suppress(OSError):  # the terminal may be closed, and the disk of the log full
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except RecursionError:
        click.echo("Error: these folders or values are nested too deeply.", err=True)
        return 1
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG):
            click.echo(
                f"Error: {error.filename or 'the output'} can't be written: {error.strerror}.",
                err=True,
            )
            os._exit(1)  # without another try to write what is left
        click.echo(
            f"Error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}.",
            err=True,
        )
        return 1


_received: set[int] = set()


def _interrupt(number: int, _: object) -> None:
    """A polite kill, as by a CI system, puts away temporary folders and helping processes as Ctrl-C does."""
    _received.add(number)
    raise KeyboardInterrupt


def _interrupted() -> int:
    _end_with(cli.INTERRUPTED)
    click.echo("Interrupted.", err=True)
    return cli.INTERRUPTED


def _end_with(code: int) -> int:
    """Ctrl-C ends the program at once from here on, with this code: torch takes seconds to end by itself, and Python shows
    a traceback of whatever was interrupted meanwhile. So does a polite kill."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return code


def _is_connected() -> bool:
    """Whether an error has left other training processes connected. The connection's threads may then let go of a tensor
    while Python ends, which aborts the process up to Python 3.13."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


if __name__ == "__main__":
    main()
