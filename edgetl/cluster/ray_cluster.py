"""Ray: started for one run on this machine, or a cluster that is there; quiet in either case."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from edgetl.errors import MissingDependencyError, RuntimeUnavailableError, first_line
from edgetl.system.temporary_folder import scratch_folder

AUTO = "auto"
"""The cluster that this machine belongs to."""
_ADDRESS_VARIABLE = "RAY_ADDRESS"
_NO_ADDRESS = ("", AUTO, "local")
_CONNECT_SECONDS = 5
_LONGEST_FOLDER = 40  # characters: sockets in it have names of 107 at most
# How a client of HTTP/2 begins: with a line for servers that don't know it, and its settings, which
# may be empty. A server's first answer is its settings.
_SETTINGS, _FRAME_HEADER = b"\x04", 9  # a frame's type, and bytes before its content
_HTTP2_BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + bytes(5)
# Read when Ray is imported. Its processes write no log lines to this terminal, and spend no time on
# figures for a dashboard that is not there.
_ENVIRONMENT = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_enable_metrics_collection": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
_HINT = (
    "Check the address and that the cluster runs; this machine must be one of it. If `ray start` "
    "says that token authentication is enabled, set RAY_AUTH_MODE=token here, too. --ray without "
    "an address starts one here for the run."
)


@contextmanager
def ray_cluster(address: str) -> Iterator[Any]:
    """Yield the module ray, connected.

    address  of ``cluster_address``; a cluster on this machine ends with the context

    Raises RuntimeUnavailableError, MissingDependencyError.
    """
    is_own = address in ("", "local")
    ray = _import_ray(is_own)
    with ExitStack() as stack:
        options: dict[str, Any] = {"address": address}
        if is_own:
            options = {"address": "local", "include_dashboard": False}
            folder = str(stack.enter_context(scratch_folder("edgetl-ray")))
            if len(folder) <= _LONGEST_FOLDER:
                options["_temp_dir"] = folder
        # Ray's threads print there that a worker died, which is repeated elsewhere.
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))
        stack.callback(_shutdown, ray)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with _silent_stderr():
                ray.init(**options, logging_level=logging.CRITICAL, log_to_driver=False)
        except Exception as error:  # of Ray's and gRPC's many kinds
            if address == AUTO and "any running Ray instance" in str(error):
                message = "This machine belongs to no Ray cluster."
            else:
                where = "Ray on this machine" if is_own else f"the Ray cluster at {address}"
                message = f"Can't use {where}: {first_line(error)}"
            raise RuntimeUnavailableError(message, _HINT) from error
        finally:
            with suppress(ValueError):  # not in the main thread
                for number, handler in handlers.items():  # Ray's own would end this process
                    signal.signal(number, handler)
        yield ray


def cluster_address(given: str) -> str:
    """The address of the cluster to use; "" for one on this machine that is not there yet.

    given  "auto", "host:port", or "" for RAY_ADDRESS, where that is set

    Raises RuntimeUnavailableError for an address at which no cluster can be.
    """
    address = given or os.environ.get(_ADDRESS_VARIABLE, "")
    require_address(address)
    if address in _NO_ADDRESS:
        return address
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as server:
            is_grpc = _speaks_grpc(server)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RuntimeUnavailableError(
            f"There is no Ray cluster at {address}: {reason}.", _HINT
        ) from error
    if not is_grpc:
        raise RuntimeUnavailableError(
            f"There is no Ray cluster at {address}: another program answers there.", _HINT
        )
    return address


def require_address(text: str) -> None:
    """Raise RuntimeUnavailableError for what is not written as an address of a cluster is."""
    host, colon, port = text.rpartition(":")
    if text in _NO_ADDRESS or (host and colon and port.isdecimal() and "://" not in text):
        return
    hint = f"To use this machine, or what {_ADDRESS_VARIABLE} names, give --ray last."
    if "://" in text:
        hint = (
            "Addresses such as ray:// are for interactive use: give the command on a machine of "
            "the cluster, or have `ray job submit` give it there."
        )
    raise RuntimeUnavailableError(
        f"--ray {text}: a cluster's address is HOST:PORT, or {AUTO}.", hint
    )


def _speaks_grpc(server: socket.socket) -> bool:
    """Whether a server answers HTTP/2; ray.init waits for minutes where it does not."""
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return True
    server.sendall(_HTTP2_BEGIN)
    answer = b""
    while len(answer) < _FRAME_HEADER and (some := server.recv(_FRAME_HEADER - len(answer))):
        answer += some
    return answer[3:4] == _SETTINGS


def _import_ray(starts_here: bool) -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not starts_here:  # twenty, a second each, if the cluster is there but wants a token
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")
    elif not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & os.environ.keys():
        # Its processes listen to other machines, too. Ray would write a token to the home folder.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to its makers
    try:
        ray = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        raise MissingDependencyError(error.name or "ray", "--ray", "ray") from error
    return ray


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Only Python writes to standard error: Ray's compiled part says there that it is quiet."""
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w", errors="backslashreplace") as kept, redirect_stderr(kept):
        try:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept.fileno(), 2)


def _shutdown(ray: Any) -> None:
    with suppress(Exception):  # what fails at the end must not hide what failed before
        ray.shutdown()
