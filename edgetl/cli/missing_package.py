"""What to install when a package is missing that a command imports."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from edgetl.errors import MissingDependencyError


def missing_package(error: ModuleNotFoundError, command: str) -> MissingDependencyError:
    """The error to show. Raises ``error`` again if the module is Python's or edgetl's own."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "edgetl", *sys.stdlib_module_names}:
        raise error
    # onnxruntime must not be installed beside onnxruntime-gpu, which find_spec finds too.
    extra = "train" if find_spec("onnxruntime") else "train,cpu"
    return MissingDependencyError(package, f"edgetl {command}", extra)
