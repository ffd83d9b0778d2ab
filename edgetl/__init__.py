"""A folder of labelled photos in, an image classifier out that answers the same on the device.

>>> import edgetl
>>> edgetl.train("photos", "runs/pets")
>>> edgetl.export("runs/pets", "exported/pets")
>>> edgetl.check("exported/pets", "photos/val").passed
True
>>> edgetl.evaluate("exported/pets", "photos/test").accuracy
0.985
>>> predictor = edgetl.Predictor("exported/pets")
>>> predictor("photo.jpg").label
'cat'
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from edgetl._version import __version__
from edgetl.errors import (
    BundleError,
    CheckpointError,
    DataError,
    EdgetlError,
    ExportError,
    ImageError,
    MissingDependencyError,
    ParityError,
    PredictionError,
    ResultsError,
    RuntimeUnavailableError,
    SpecError,
    TrainingError,
)

if TYPE_CHECKING:
    from edgetl.evaluation.evaluation_result import EvaluationResult
    from edgetl.evaluation.evaluation_run import evaluate
    from edgetl.exporting.export_result import ExportResult
    from edgetl.exporting.export_run import export
    from edgetl.parity.check_model import check
    from edgetl.parity.results import AgainstResult, CheckResult
    from edgetl.runtime.drift.drift_result import DriftResult
    from edgetl.runtime.drift.drift_run import drift
    from edgetl.runtime.images.spec import PreprocessSpec
    from edgetl.runtime.inference.prediction import Prediction
    from edgetl.runtime.inference.predictor import Predictor
    from edgetl.training.engine.train_result import TrainResult
    from edgetl.training.engine.train_run import train
    from edgetl.training.importing.import_result import ImportResult
    from edgetl.training.importing.import_run import import_network

# onnxruntime's wheels report their use to Microsoft unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "AgainstResult",
    "BundleError",
    "CheckResult",
    "CheckpointError",
    "DataError",
    "DriftResult",
    "EdgetlError",
    "EvaluationResult",
    "ExportError",
    "ExportResult",
    "ImageError",
    "ImportResult",
    "MissingDependencyError",
    "ParityError",
    "Prediction",
    "PredictionError",
    "Predictor",
    "PreprocessSpec",
    "ResultsError",
    "RuntimeUnavailableError",
    "SpecError",
    "TrainResult",
    "TrainingError",
    "__version__",
    "check",
    "drift",
    "evaluate",
    "export",
    "import_network",
    "train",
]

# Loaded at first use, so that `import edgetl` costs no numpy and no onnxruntime.
_LAZY = {
    "AgainstResult": "edgetl.parity.results",
    "CheckResult": "edgetl.parity.results",
    "DriftResult": "edgetl.runtime.drift.drift_result",
    "EvaluationResult": "edgetl.evaluation.evaluation_result",
    "ExportResult": "edgetl.exporting.export_result",
    "ImportResult": "edgetl.training.importing.import_result",
    "Prediction": "edgetl.runtime.inference.prediction",
    "Predictor": "edgetl.runtime.inference.predictor",
    "PreprocessSpec": "edgetl.runtime.images.spec",
    "TrainResult": "edgetl.training.engine.train_result",
    "check": "edgetl.parity.check_model",
    "drift": "edgetl.runtime.drift.drift_run",
    "evaluate": "edgetl.evaluation.evaluation_run",
    "export": "edgetl.exporting.export_run",
    "import_network": "edgetl.training.importing.import_run",
    "train": "edgetl.training.engine.train_run",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'edgetl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
