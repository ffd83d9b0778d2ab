"""Verifying that an exported model gives the trained network's answers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgetl.errors import ExportError
from edgetl.exporting.export_result import Verification
from edgetl.exporting.formats.deployed_classifier import DeployedClassifier
from edgetl.exporting.golden_photos import GoldenReference
from edgetl.onnx_graph.graph_editing import with_outputs
from edgetl.onnx_graph.tracing import quiet
from edgetl.runtime.bundle.probability_tolerances import PROBABILITY_TOLERANCES
from edgetl.runtime.bundle.tensor_names import IMAGES, LOGITS, PROBABILITIES, RESIZED
from edgetl.runtime.inference.session import open_session

# Sums in another order differ by 1e-7 to 1e-5, as measured.
MAX_PROBABILITY_DIFFERENCE = PROBABILITY_TOLERANCES["fp32"]

# resized uint8 [N, h, w, 3], logits and probabilities float32 [N, classes]
Outputs = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
ExportedModel = Callable[[NDArray[np.uint8]], Outputs]  # takes uint8 [N, H, W, 3]


def open_onnx(model: onnx.ModelProto) -> ExportedModel:
    """``model`` in onnxruntime on the CPU."""
    content = with_outputs(model, [RESIZED]).SerializeToString()
    session = open_session(content, providers="cpu", name="the exported ONNX model")
    names = [RESIZED, LOGITS, PROBABILITIES]
    return lambda images: tuple(session.run(names, {IMAGES: images}))


def open_torchscript(content: bytes) -> ExportedModel:
    """A TorchScript file in torch."""
    with quiet():  # torch warns that it is deprecated
        module = torch.jit.load(io.BytesIO(content), map_location="cpu")

    def run(images: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            resized, _, logits, probabilities = module.stages(torch.from_numpy(images))
        return resized.numpy(), logits.numpy(), probabilities.numpy()

    return run


def open_program(content: bytes, classifier: DeployedClassifier) -> ExportedModel:
    """A torch.export program in torch.

    It has no output ``resized``, which is computed by ``classifier``, its source.
    """
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
    model: ExportedModel,
    references: Sequence[GoldenReference],
    max_difference: float = MAX_PROBABILITY_DIFFERENCE,
) -> Verification:
    """Compare ``model`` with the references, each photo alone and in a batch with its negative.

    The batch shows whether outputs depend on batch composition. Raises ExportError naming the photo
    and the stage if a resized pixel differs, or a probability by more than ``max_difference``.
    """
    largest_logits, largest_probabilities = 0.0, 0.0
    for reference in references:
        alone = np.array(reference.pixels)[None]  # a copy: torch warns of read-only arrays
        for images in (alone, np.concatenate([alone, ~alone])):
            resized, logits, probabilities = (rows[0] for rows in model(images))
            if not np.array_equal(resized, reference.resized):
                raise _mismatch(name, reference, "resized pixels differ")
            if not np.isfinite(logits).all():
                raise _mismatch(name, reference, "an answer is not finite")
            difference = _max_difference(probabilities, reference.probabilities)
            if not difference <= max_difference:  # NaN fails
                raise _mismatch(name, reference, f"a probability differs by {difference:.2g}")
            largest_probabilities = max(largest_probabilities, difference)
            largest_logits = max(largest_logits, _max_difference(logits, reference.logits))
    return Verification(len(references), largest_logits, largest_probabilities)


def _max_difference(values: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(values.astype(np.float64) - expected).max())


def _mismatch(name: str, reference: GoldenReference, what: str) -> ExportError:
    return ExportError(
        f"The exported {name} model does not give the trained network's answers: "
        f"{what} on {reference.source}.",
        "Nothing was written. Try another --opset, or another --format.",
    )
