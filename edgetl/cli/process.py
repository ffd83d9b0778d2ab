"""The process that runs a command: how it is set up, interrupted and ended."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import click

# How often a waiting thread of torch looks for work before it sleeps: a thirtieth of the default.
# On a busy machine, a spinning thread keeps a core from the very thread that it waits for.
_SPIN_COUNT = "10000"
# New objects between two garbage collections. With Python's default of 700 to 2,000, collections
# take a fifth of the time of importing torch.
_GC_THRESHOLD = 10_000

_received: set[int] = set()  # signals
_closed: set[str] = set()  # standard streams that were closed when the process began


def prepare() -> None:
    """Set up output streams, garbage collection, waiting threads and signals."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # show what it can't encode as escapes
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("COLUMNS") == "0":  # from terminals that don't know yet: no room for tables
        del os.environ["COLUMNS"]
    gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])
    spin_less()
    for number, default in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == default:
            signal.signal(number, _interrupt)


def _open_closed_streams() -> None:
    """Let what is written to a closed standard stream disappear, as /dev/null does.

    Otherwise the next file that is opened would get its number, and what a library prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            _closed.add(name)
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  until the end
            setattr(sys, name, nowhere)


def require_stdout() -> None:
    """Called by a command whose answer is only printed. Raises ClickException without a stdout."""
    if "stdout" in _closed:
        raise click.ClickException(
            "Standard output is closed; send it to /dev/null if it is not wanted."
        )


def spin_less() -> None:
    """Let torch's waiting threads sleep sooner, unless the user has set how long they spin.

    Has no effect after torch is imported.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT


def is_interrupted() -> bool:
    """Whether Ctrl-C or SIGTERM was received."""
    return bool(_received)


def exit_on_signal(code: int) -> None:
    """From here on, exit at once on Ctrl-C, with ``code``, and on SIGTERM.

    torch takes seconds to shut down, and Python shows a traceback of what is interrupted meanwhile.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end(code: int) -> None:
    """End the process with ``code``, or by SIGTERM if that was received."""
    if signal.SIGTERM in _received:  # its sender expects that; has no effect on process 1
        os.kill(os.getpid(), signal.SIGTERM)
    gc.freeze()  # else Python spends a second to look for garbage in all that torch imported
    # An error may leave this process connected to others. From Python 3.13 back, the connection's
    # threads can abort it during shutdown by releasing a tensor.
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        with suppress(OSError, ValueError, AttributeError):  # stdout is full, closed or missing
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt(number: int, _: object) -> None:
    """SIGTERM removes temporary folders and child processes, like Ctrl-C."""
    _received.add(number)
    raise KeyboardInterrupt
