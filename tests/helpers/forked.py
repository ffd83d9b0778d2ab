"""``edgetl`` in processes that start at once: forked from one that has imported torch already.

Importing torch, torchvision and timm takes seconds, which tests of several processes would pay for
each of them.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from edgetl.cli import process
from edgetl.cli.main import main
from helpers.no_figures import leave_out_figures

_SECONDS = 120  # a process that takes longer hangs, which is a failure

process.spin_less()  # as the program does; it has no effect once torch is imported
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "edgetl.training.engine.new_run",
        "edgetl.training.engine.train_run",
        "edgetl.cli.train",
        "jinja2",
        "onnx",
        "rich.progress",
        "rich.table",
        "torch._inductor.config",  # which DistributedDataParallel imports
        "torch.distributed.run",
    ]
)


class Forked:
    """A running ``edgetl`` command.

    environment  set beside the variables of the tests
    output       where stdout and stderr go, such as a terminal, instead of to ``ended``
    before       called in the process before the command; must be importable
    program      what is run with the arguments instead of ``edgetl``; must be importable
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, object] | None = None,
        folder: Path | None = None,
        output: str | None = None,
        before: Callable[[], None] | None = None,
        program: Callable[[], None] = main,
    ) -> None:
        self._file = tempfile.NamedTemporaryFile(mode="w+")  # noqa: SIM115 - see ``ended``
        output = output or self._file.name
        variables = {**os.environ, **{k: str(v) for k, v in (environment or {}).items()}}
        where = str(folder or Path.cwd())
        given = (["edgetl", *arguments], variables, where, output, before, program)
        self._process = _context.Process(target=_run, args=given)
        self._process.start()

    def ended(self) -> tuple[int, str]:
        """Wait for the end → (exit code, what was printed to stdout and stderr)."""
        self._process.join(_SECONDS)
        code = self._process.exitcode
        self._process.kill()
        with self._file:
            said = self._file.read()
        assert code is not None, f"still running after {_SECONDS} s: {said}"
        return code, said


def free_port() -> str:
    """A port at which the processes of a run can find each other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def _run(
    argv: list[str],
    environment: dict[str, str],
    folder: str,
    output: str,
    before: Callable[[], None] | None,
    program: Callable[[], None],
) -> None:
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(file, number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    if before is not None:
        before()
    leave_out_figures()
    import helpers.small_backbone  # noqa: F401 - so that it is known there, too

    program()
