"""Every way to run the checked model. To add one, write a class (see base.py) and list it here."""

from __future__ import annotations

from edgetl.parity.runtimes.base import Runtime, Subject
from edgetl.parity.runtimes.cpp_program import CppProgram
from edgetl.parity.runtimes.emulated_arm import EmulatedArm
from edgetl.parity.runtimes.exported_program import ExportedProgram
from edgetl.parity.runtimes.onnxruntime import (
    OnnxRuntimeBatch,
    OnnxRuntimeCpu,
    OnnxRuntimeCuda,
    OnnxRuntimeCudaTf32,
    OnnxRuntimeUnoptimized,
)
from edgetl.parity.runtimes.openvino import OpenVino
from edgetl.parity.runtimes.shipped_predictor import ShippedPredictor
from edgetl.parity.runtimes.torchscript_file import TorchScript, TorchScriptFresh
from edgetl.parity.runtimes.web_module import Chromium, Firefox, Node

# In the order of the report.
RUNTIMES: dict[str, type[Runtime]] = {
    runtime.name: runtime
    for runtime in (
        TorchScript,
        TorchScriptFresh,
        ExportedProgram,
        OnnxRuntimeCpu,
        OnnxRuntimeUnoptimized,
        OnnxRuntimeBatch,
        OnnxRuntimeCuda,
        OnnxRuntimeCudaTf32,
        OpenVino,
        ShippedPredictor,
        EmulatedArm,
        CppProgram,
        Node,
        Chromium,
        Firefox,
    )
}

__all__ = ["RUNTIMES", "Runtime", "Subject"]
