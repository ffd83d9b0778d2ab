"""The C++ program of examples/cpp."""

from __future__ import annotations

import os
import shutil

from edgetl.errors import RuntimeUnavailableError
from edgetl.parity.runtimes.base import Subject
from edgetl.parity.runtimes.stages_program import ChildProgram

PROGRAM, VARIABLE = "edgetl-predict", "EDGETL_CPP"


class CppProgram(ChildProgram):
    """``edgetl-predict``, over onnxruntime's C++ interface, libjpeg-turbo and libpng."""

    name = "cpp"
    formats = ("JPEG", "MPO", "PNG")

    def __init__(self, subject: Subject) -> None:
        wanted = os.environ.get(VARIABLE) or PROGRAM
        program = shutil.which(wanted)
        if program is None:
            raise RuntimeUnavailableError(
                f"There is no program {wanted}.",
                "In a checkout of edgetl, build it with "
                "`cmake -S examples/cpp -B build && cmake --build build`, and put "
                f"build/{PROGRAM} on PATH or set {VARIABLE} to it.",
            )
        subject.onnx()  # raises if there is none
        precision = ["--precision", subject.precision] if subject.bundle else []
        options = ["--stages", "--threads", str(subject.threads), *precision]
        self.start([program, *options, str(subject.path.absolute())])
