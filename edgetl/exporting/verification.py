"""An exported model must answer as the trained network does before it is put in place."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgetl.errors import ExportError
from edgetl.exporting.formats.deployed_classifier import DeployedClassifier
from edgetl.exporting.formats.onnx_model import named_value
from edgetl.exporting.golden_photos import GoldenReference
from edgetl.onnx_graph.tracing import quiet
from edgetl.runtime.bundle.probability_tolerances import PROBABILITY_TOLERANCES
from edgetl.runtime.bundle.tensor_names import IMAGES, LOGITS, PROBABILITIES, RESIZED
from edgetl.runtime.inference.session import open_session

MAX_PROBABILITY_DIFFERENCE = PROBABILITY_TOLERANCES[
    "fp32"
]  # sums in another order; measured 1e-7 to 1e-5

# uint8 [N, H, W, 3] → resized uint8 [N, h, w, 3], logits and probabilities float32 [N, classes]
Outputs = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
Run = Callable[[NDArray[np.uint8]], Outputs]


@dataclass(frozen=True)
class Verification:
    """How far an exported model was from the trained network: the largest absolute differences over ``photos`` pictures.

    probabilities  0..1
    """

    photos: int
    logits: float
    probabilities: float

    def to_dict(self) -> Mapping[str, Any]:
        return asdict(self)


def run_onnx(model: onnx.ModelProto) -> Run:
    """``model`` in onnxruntime on the CPU."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(named_value(model, RESIZED))
    session = open_session(
        shown.SerializeToString(), providers="cpu", name="the exported ONNX model"
    )
    names = [RESIZED, LOGITS, PROBABILITIES]
    return lambda images: tuple(session.run(names, {IMAGES: images}))


def run_torchscript(content: bytes) -> Run:
    """A TorchScript file, read back."""
    with quiet():  # it is deprecated, and said to be so
        module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]

    def run(images: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            resized, _, logits, probabilities = module.stages(torch.from_numpy(images))
        return resized.numpy(), logits.numpy(), probabilities.numpy()

    return run


def run_program(content: bytes, classifier: DeployedClassifier) -> Run:
    """A torch.export program, read back. It shows its answers only; ``resized`` is from what it was recorded from."""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(images: NDArray[np.uint8]) -> Outputs:
        tensor = torch.from_numpy(images)
        with torch.inference_mode():
            logits, probabilities = module(tensor)
            resized = classifier.preprocess.resize(tensor)
        return resized.numpy(), logits.numpy(), probabilities.numpy()

    return run


def verify(
    name: str,
    run: Run,
    references: Sequence[GoldenReference],
    limit: float = MAX_PROBABILITY_DIFFERENCE,
) -> Verification:
    """Compare ``run`` with the references, each photo alone and in a batch with its negative, which must not sway it.

    Raises ExportError naming the photo and the stage if a resized pixel differs, or a probability by more than ``limit``.
    """
    logits, probabilities = 0.0, 0.0
    for reference in references:
        alone = np.array(reference.pixels)[
            np.newaxis
        ]  # a copy: torch warns of arrays that it may not write to
        for images in (alone, np.concatenate([alone, ~alone])):
            resized, its_logits, its_probabilities = (rows[0] for rows in run(images))
            if not np.array_equal(resized, reference.resized):
                raise _mismatch(name, reference, "resized pixels differ")
            logits = max(logits, _distance(its_logits, reference.logits))
            distance = _distance(its_probabilities, reference.probabilities)
            if not distance <= limit:  # NaN fails
                raise _mismatch(name, reference, f"a probability differs by {distance:.2g}")
            probabilities = max(probabilities, distance)
    return Verification(len(references), logits, probabilities)


def _distance(values: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(values.astype(np.float64) - expected).max())


def _mismatch(name: str, reference: GoldenReference, what: str) -> ExportError:
    return ExportError(
        f"The exported {name} model does not answer as the trained network: {what} on {reference.source}.",
        "Nothing was written. Try another --opset, or another --format.",
    )
