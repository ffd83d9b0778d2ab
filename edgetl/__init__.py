"""edgetl: a folder of labelled photos in, an image classifier out that answers the same on the device as in training.

>>> from edgetl import Predictor
>>> predictor = Predictor("exported/pets")
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
    from edgetl.runtime.images.spec import PreprocessSpec
    from edgetl.runtime.inference.prediction import Prediction
    from edgetl.runtime.inference.predictor import Predictor

# onnxruntime's wheels report their use to Microsoft unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "BundleError",
    "CheckpointError",
    "DataError",
    "EdgetlError",
    "ExportError",
    "ImageError",
    "MissingDependencyError",
    "ParityError",
    "Prediction",
    "PredictionError",
    "Predictor",
    "PreprocessSpec",
    "ResultsError",
    "RuntimeUnavailableError",
    "SpecError",
    "TrainingError",
    "__version__",
]

# Loaded at first use, so that `edgetl --help` costs no numpy and no onnxruntime.
_LAZY = {
    "Prediction": "edgetl.runtime.inference.prediction",
    "Predictor": "edgetl.runtime.inference.predictor",
    "PreprocessSpec": "edgetl.runtime.images.spec",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'edgetl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
