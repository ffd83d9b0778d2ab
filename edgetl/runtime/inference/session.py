"""Opening a model in onnxruntime: which execution provider, how many threads, and what to say when it can't be."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgetl.errors import BundleError, MissingDependencyError, RuntimeUnavailableError, first_line

if TYPE_CHECKING:
    import onnxruntime

Providers = str | Sequence[str]
"""``auto`` (CUDA where it works, else the CPU), one name, or names in order of preference; ``cuda`` or
``CUDAExecutionProvider``, in any case."""

_LOG_FATAL_ONLY = 4  # what goes wrong reaches the caller as an exception, not as text on stderr


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

    model      the file's bytes, its path, or the open file itself, which is then read whatever has taken its place since
    providers  see ``Providers``; what was asked for by name is what runs, or this raises
    threads    threads inside one run; None: one a core
    optimize   graph optimizations on
    tf32       let CUDA round matrix products to TF32; off, since it costs three digits
    name       how errors name a model that is not given by its path

    Raises RuntimeUnavailableError, BundleError for a file that onnxruntime can't load, MissingDependencyError.
    """
    ort = import_onnxruntime()
    wanted = _resolve(providers, ort.get_available_providers())
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY
    # Else the threads of a run go on spinning after it, for milliseconds, on the cores that decode the next photo: on
    # two of them a photo took 3-10 % longer and a fifth more processor time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    cuda_options = {"use_tf32": int(tf32)}
    configured = [(p, cuda_options) if p == "CUDAExecutionProvider" else p for p in wanted]
    if "CUDAExecutionProvider" in wanted:
        _load_cuda(ort)
    shown, source = name or (model if isinstance(model, Path) else "<model>"), _source(model)

    def create(chosen: Sequence[object]) -> onnxruntime.InferenceSession:
        # Its own way to try again with fewer providers tells about it on stdout, where answers may be going.
        return ort.InferenceSession(source, options, providers=chosen, enable_fallback=0)

    try:
        try:
            session = create(configured)
        except (ValueError, RuntimeError):
            if len(configured) == 1:
                raise
            session = create(configured[-1:])  # the CPU; below it is told where it was not wanted
    except Exception as error:  # onnxruntime's own exceptions share no base class but this
        reason = (
            first_line(error).replace(str(source), "it")
            if isinstance(source, str)
            else first_line(error)
        )
        hint = "Name a bundle folder or a model.onnx that `edgetl export` wrote."
        raise BundleError(
            shown, f"onnxruntime {ort.__version__} can't load it: {reason}", hint
        ) from error
    running = session.get_providers()[0]
    if providers != "auto" and running != wanted[0]:
        raise RuntimeUnavailableError(
            f"{wanted[0]} was asked for, but onnxruntime could not start it and would run on {running}.",
            "Check the driver and the CUDA and cuDNN versions that this onnxruntime-gpu needs "
            '(`pip install "onnxruntime-gpu[cuda,cudnn]"` brings them), or ask for cpu.',
        )
    return session


def _load_cuda(ort: Any) -> None:
    """Find CUDA where pip put it, as importing torch would. What is missing is told by the session that can't start."""
    if hasattr(ort, "preload_dlls"):  # since 1.21
        with redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def _source(model: bytes | Path | IO[bytes]) -> bytes | str:
    """What onnxruntime is given to load.

    A path where there is one for an open file, as on Linux: the bytes would stand in memory beside what is made of
    them, and next to such a path a model finds no other file that it could refer to.
    """
    if isinstance(model, bytes):
        return model
    if isinstance(model, Path):
        return str(model)
    try:
        link = f"/proc/self/fd/{model.fileno()}"
    except OSError:  # a file in memory alone
        return model.read()
    return link if os.path.exists(link) else model.read()  # noqa: PTH110  no pathlib object is wanted of it


def import_onnxruntime() -> Any:
    """The onnxruntime module. Raises MissingDependencyError with the install command."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MissingDependencyError("onnxruntime", "Running a model", "cpu") from error
    except ImportError as error:
        if isinstance(
            error.__cause__, KeyboardInterrupt
        ):  # its own code was importing when Ctrl-C came
            raise KeyboardInterrupt from error
        raise RuntimeUnavailableError(
            f"onnxruntime can't be imported: {error}", "Mend its installation."
        ) from error
    onnxruntime.set_default_logger_severity(_LOG_FATAL_ONLY)
    return onnxruntime


def _resolve(providers: Providers, available: Sequence[str]) -> list[str]:
    """Full provider names in order, the CPU last: it takes what the others have no kernel for."""
    if providers == "auto":
        names = [name for name in ("CUDAExecutionProvider",) if name in available]
    else:
        known = {
            key: name
            for name in available
            for key in (name.lower(), name.lower().removesuffix("executionprovider"))
        }
        asked = [providers] if isinstance(providers, str) else list(providers)
        if not all(isinstance(name, str) for name in asked):
            raise TypeError(f"providers are names, without options: {providers!r}")
        missing = [name for name in asked if name.lower() not in known]
        if missing or not asked:
            raise RuntimeUnavailableError(
                f"The execution provider {', '.join(missing) or '(none named)'} is not in the installed onnxruntime.",
                f"Available here: auto, {', '.join(sorted(set(known) - {n.lower() for n in available}))}.",
            )
        names = [known[name.lower()] for name in asked]
    return list(dict.fromkeys([*names, "CPUExecutionProvider"]))
