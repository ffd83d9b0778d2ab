"""The shipped predictor on ARM64, emulated by qemu."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import edgetl
from edgetl.errors import RuntimeUnavailableError
from edgetl.onnx_graph.onnx_file import cut_at_preprocessing
from edgetl.parity.runtimes.base import Subject
from edgetl.parity.runtimes.stages_program import ChildProgram

VARIABLE = "EDGETL_ARM64"
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from edgetl.parity.runtimes.shipped_predictor import main; main(*sys.argv[1:])"
)


class EmulatedArm(ChildProgram):
    """This edgetl with the packages that a Raspberry Pi would install.

    QEMU_CPU in the environment names the processor, such as cortex-a53, cortex-a72, cortex-a76.
    """

    name = "arm64"
    on_request = True
    seconds = 900.0

    def __init__(self, subject: Subject) -> None:
        python = Path(os.environ.get(VARIABLE, "")).absolute() / "python"
        if not os.environ.get(VARIABLE) or not python.is_file():
            raise RuntimeUnavailableError(
                f"The environment variable {VARIABLE} names no folder with an ARM64 Python.",
                "Make one with `scripts/arm64_environment DIR`, and set it to DIR.",
            )
        preprocessing = cut_at_preprocessing(subject.onnx())
        precision = subject.precision if subject.bundle else ""
        code = Path(edgetl.__file__).parents[1]
        self._cut = tempfile.NamedTemporaryFile(suffix=".onnx")  # noqa: SIM115  closed in close()
        self._cut.write(preprocessing)
        self._cut.flush()
        arguments = (subject.path.absolute(), precision, subject.threads, self._cut.name)
        self.start([str(python), "-c", _START, str(code), *map(str, arguments)])

    def close(self) -> None:
        super().close()
        self._cut.close()
