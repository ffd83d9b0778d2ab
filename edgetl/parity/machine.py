"""What the comparison ran on, for the reports."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import edgetl
from edgetl.runtime.cores import cores, processor

_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "onnx", "numpy", "pillow")


def describe_machine() -> dict[str, str]:
    """Operating system, processor, Python and the packages that can change an answer; name → text."""
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{processor()}, {cores()} cores",
        "python": platform.python_version(),
        "edgetl": edgetl.__version__,
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts
