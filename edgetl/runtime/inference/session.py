"""Opening a model in onnxruntime: which execution provider, how many threads, and clear errors."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgetl.errors import (
    BundleError,
    EdgetlError,
    MissingDependencyError,
    RuntimeUnavailableError,
    first_line,
)

if TYPE_CHECKING:
    import onnxruntime

Providers = str | Sequence[str]
"""``auto`` (CUDA where it works, else the CPU), one name, or names in order of preference.

A name is ``cuda`` or ``CUDAExecutionProvider``, in any case.
"""

CPU = "CPUExecutionProvider"
"""The provider of a session on a CPU, which gains nothing from several photos in a run."""

SPIN_VARIABLE = "EDGETL_SPIN_US"
"""Environment variable: how many microseconds a thread spins that waits for work inside a run."""
# On a quiet machine as fast as spinning without end, on a busy one nearly as fast as not spinning,
# which is up to twice as fast there; see scripts/bench_spinning.py.
_SPIN_MICROSECONDS = 20

_LOG_FATAL_ONLY = 4  # errors reach the caller as exceptions, not as text on stderr


def open_session(
    model: bytes | Path | IO[bytes],
    *,
    providers: Providers = "auto",
    threads: int | None = None,
    optimize: bool = True,
    tf32: bool = False,
    name: str | Path | None = None,
) -> onnxruntime.InferenceSession:
    """Load a model in onnxruntime.

    model      the file's bytes, its path, or the open file itself; an open file is read even if its
               path now leads to another one
    providers  see ``Providers``; a provider that was asked for by name is used, or this raises
    threads    threads inside one run; None: one per core
    optimize   graph optimizations on
    tf32       let CUDA round matrix products to TF32; off, since it costs three digits
    name       what errors call a model that is not given by its path

    Raises RuntimeUnavailableError, MissingDependencyError, EdgetlError for a SPIN_VARIABLE that is
    no number, and BundleError for a file that onnxruntime can't load.
    """
    ort = import_onnxruntime()
    wanted = _resolve(providers, ort.get_available_providers())
    options = _session_options(ort, threads, optimize)
    cuda_options = {"use_tf32": int(tf32)}
    configured = [(p, cuda_options) if p == "CUDAExecutionProvider" else p for p in wanted]
    if "CUDAExecutionProvider" in wanted and hasattr(ort, "preload_dlls"):  # since 1.21
        # Finds CUDA where pip put it, as importing torch does; if it is missing, the session fails.
        with redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    source = _source(model)

    def create(chosen: Sequence[object]) -> onnxruntime.InferenceSession:
        # onnxruntime's own fallback prints to stdout, where predictions may be going.
        return ort.InferenceSession(source, options, providers=chosen, enable_fallback=0)

    try:
        try:
            session = create(configured)
        except (ValueError, RuntimeError):
            if len(configured) == 1:
                raise
            session = create(configured[-1:])  # the CPU; refused below unless providers is "auto"
    except Exception as error:  # onnxruntime's exceptions have no other common base class
        reason = first_line(error)
        if isinstance(source, str):
            reason = reason.replace(source, "it")
        raise BundleError(
            name or (model if isinstance(model, Path) else "<model>"),
            f"onnxruntime {ort.__version__} can't load it: {reason}",
            "Name a bundle folder or a model.onnx that `edgetl export` wrote.",
        ) from error
    running = session.get_providers()[0]
    if providers != "auto" and running != wanted[0]:
        raise RuntimeUnavailableError(
            f"{wanted[0]} was asked for, but onnxruntime could not start it and would run on "
            f"{running}.",
            "Check the driver and the CUDA and cuDNN versions that this onnxruntime-gpu needs "
            '(`pip install "onnxruntime-gpu[cuda,cudnn]"` brings them), or ask for cpu.',
        )
    return session


def _session_options(ort: Any, threads: int | None, optimize: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY
    # Otherwise a run's threads keep spinning for milliseconds on the cores that decode the next
    # photo: on two cores a photo took 3-10 % longer and a fifth more processor time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    duration = _spin_microseconds()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(duration > 0)))
    # Since onnxruntime 1.26; before, they spin for as long as there is no work.
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(duration))
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _spin_microseconds() -> int:
    text = os.environ.get(SPIN_VARIABLE) or str(_SPIN_MICROSECONDS)
    if not (text.isascii() and text.isdecimal()):
        raise EdgetlError(
            f"{SPIN_VARIABLE} is {text!r}; it must be a whole number of microseconds.",
            "Leave it unset, or set it to 0 for threads that never spin.",
        )
    return int(text)


def _source(model: bytes | Path | IO[bytes]) -> bytes | str:
    """What onnxruntime is given to load.

    For an open file it is a path where there is one, as on Linux: bytes would be in memory beside
    what is made of them, and next to such a path a model finds no other file to refer to.
    """
    if isinstance(model, bytes):
        return model
    if isinstance(model, Path):
        return str(model)
    try:
        link = f"/proc/self/fd/{model.fileno()}"
    except OSError:  # a file in memory only
        return model.read()
    return link if os.path.exists(link) else model.read()  # noqa: PTH110  no Path is needed


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises MissingDependencyError with the install command, RuntimeUnavailableError if it is broken.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MissingDependencyError("onnxruntime", "Running a model", "cpu") from error
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C inside its compiled module
            raise KeyboardInterrupt from error
        raise RuntimeUnavailableError(
            f"onnxruntime can't be imported: {error}", "Repair its installation."
        ) from error
    onnxruntime.set_default_logger_severity(_LOG_FATAL_ONLY)
    return onnxruntime


def _resolve(providers: Providers, available: Sequence[str]) -> list[str]:
    """Full provider names in order, the CPU last: it runs what the others have no kernel for."""
    if providers == "auto":
        names = [name for name in ("CUDAExecutionProvider",) if name in available]
    else:
        short = {name.lower().removesuffix("executionprovider"): name for name in available}
        known = {**{name.lower(): name for name in available}, **short}
        asked = [providers] if isinstance(providers, str) else list(providers)
        if not all(isinstance(name, str) for name in asked):
            raise TypeError(f"providers are names, without options: {providers!r}")
        missing = [name for name in asked if name.lower() not in known]
        if missing or not asked:
            raise RuntimeUnavailableError(
                f"The execution provider {', '.join(missing) or '(none named)'} is not in the "
                "installed onnxruntime.",
                f"Available here: auto, {', '.join(sorted(short))}.",
            )
        names = [known[name.lower()] for name in asked]
    return list(dict.fromkeys([*names, CPU]))
