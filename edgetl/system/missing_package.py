"""What to install when a package is missing that edgetl imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from edgetl.errors import MissingDependencyError


def missing_package(error: ModuleNotFoundError, needed_for: str) -> MissingDependencyError:
    """The error to show. Raises ``error`` again if the module is Python's or edgetl's own."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "edgetl", *sys.stdlib_module_names}:
        raise error
    # onnxruntime must not be installed beside onnxruntime-gpu, which find_spec finds too.
    extra = "train" if find_spec("onnxruntime") else "train,cpu"
    return MissingDependencyError(package, needed_for, extra)


def require_packages(needed_for: str, extra: str, *packages: str) -> None:
    """Raises MissingDependencyError if one of the packages of an extra is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingDependencyError(package, needed_for, extra)


@contextmanager
def explain_missing_packages(needed_for: str) -> Iterator[None]:
    """Turn a ModuleNotFoundError into a MissingDependencyError that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_package(error, needed_for) from error
