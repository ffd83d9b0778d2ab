"""The C++ example, built once."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parents[2] / "examples/cpp"
_HEADERS = ("onnxruntime/onnxruntime_c_api.h", "jpeglib.h", "png.h")


def build_cpp(folder: Path) -> None:
    """The library and the program in ``folder``, unless another worker has built them there.

    Skips the test without what they need.
    """
    headers = [Path("/usr/include") / name for name in _HEADERS]
    if not all(map(shutil.which, ("cmake", "g++"))) or not all(map(Path.exists, headers)):
        pytest.skip("needs cmake, g++, libonnxruntime-dev, libjpeg-dev and libpng-dev")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "edgetl-predict").exists():
            quick = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS=-O1 -g0 -Werror"]
            for command in (
                ["cmake", "-S", str(_SOURCE), "-B", str(folder), *quick],
                ["cmake", "--build", str(folder), "--parallel"],
            ):
                done = subprocess.run(command, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout + done.stderr
