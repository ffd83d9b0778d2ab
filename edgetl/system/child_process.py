"""Child processes that are killed with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO


def start_child(
    command: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a process group of its own, which Ctrl-C in the terminal doesn't reach.

    environment  variables that it gets beside this process's

    Raises OSError.
    """
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **(environment or {})},
        start_new_session=True,  # without effect on Windows
    )


def ending_with_stdin(command: Sequence[str]) -> list[str]:
    """``command``, for ``start_child`` with a pipe as stdin: it is killed where that ends.

    So it does not outlive this process, however that ends. Without effect on Windows.
    """
    if os.name != "posix":
        return list(command)
    return ["sh", "-c", '("$@"; kill -9 0) & read -r _; kill -9 0', "sh", *command]


def kill_child(process: subprocess.Popen[bytes]) -> None:
    """Kill what ``start_child`` started; who reads from its pipes gets to their end."""
    if os.name == "posix":
        with suppress(OSError):  # they have all ended
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
