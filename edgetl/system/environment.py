"""What a result was computed on: operating system, processor, Python and package versions."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from edgetl._version import __version__
from edgetl.system.machine import cores, processor

_PACKAGES = (
    *("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "onnx", "numpy"),
    *("pillow", "pi-heif", "pillow-heif"),
)


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of edgetl, Python, and the ``packages`` (distribution names) that are installed."""
    # Not asked of importlib: edgetl may run from a checkout.
    found = {"edgetl": __version__, "python": platform.python_version()}
    installed = {package: _installed(package) for package in packages}
    return found | {package: kept for package, kept in installed.items() if kept}


@cache
def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_machine() -> dict[str, str]:
    """Operating system, processor, and versions of all that can change an answer; name → text."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{processor()}, {cores()} cores",
        **package_versions(*_PACKAGES),
    }
