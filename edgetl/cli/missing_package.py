"""What to install where a package is missing that a command imports."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from edgetl.errors import MissingDependencyError


def missing_package(error: ModuleNotFoundError, command: str) -> MissingDependencyError:
    """The error to tell. Raises ``error`` again where what is missing is Python's or edgetl's own."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "edgetl", *sys.stdlib_module_names}:
        raise error
    # Whoever has onnxruntime-gpu must not be told to install onnxruntime beside it.
    return MissingDependencyError(
        package, f"edgetl {command}", "train" if find_spec("onnxruntime") else "train,cpu"
    )
