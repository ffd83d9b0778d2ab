"""Data folders are read, checked and split without torch."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
import edgetl.data, edgetl.runtime, edgetl.system

sys.modules.update(dict.fromkeys(["torch", "torchvision", "timm"]))  # importing them fails
for room in (edgetl.data, edgetl.runtime, edgetl.system):
    for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
        importlib.import_module(module.name)
        print(module.name)
print(*[name for name in sys.modules if name.startswith("edgetl.training")])
"""


def test_no_module_of_data_runtime_and_system_imports_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    imported = done.stdout.split()
    for module in (
        "edgetl.data.split",
        "edgetl.runtime.inference.predictor",
        "edgetl.system.paths",
    ):
        assert module in imported
    assert not [name for name in imported if name.startswith("edgetl.training")]
