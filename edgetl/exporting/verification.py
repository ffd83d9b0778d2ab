"""Verifying that an exported model gives the trained network's answers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgetl.errors import ExportError
from edgetl.exporting.export_result import Verification
from edgetl.exporting.formats.deployed_classifier import OUTPUTS, STAGE_TENSORS, DeployedClassifier
from edgetl.exporting.formats.mapped_network import MappedNetwork
from edgetl.exporting.golden_photos import GoldenReference
from edgetl.onnx_graph.graph_editing import with_outputs
from edgetl.onnx_graph.tracing import quiet
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.probability_tolerances import (
    PROBABILITY_TOLERANCES,
    SAME_MODEL_TOLERANCES,
    activation_limit,
    logits_limit,
    score_limit,
)
from edgetl.runtime.bundle.tensor_names import (
    EMBEDDING,
    EVIDENCE,
    IMAGES,
    LOGITS,
    OOD_SCORE,
    PROBABILITIES,
    RESIZED,
)
from edgetl.runtime.images.resize import normalize
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.inference.session import open_session

# Sums in another order differ by 1e-7 to 1e-5, as measured.
_EVIDENCE_TOLERANCE = 1e-4  # as a share of the largest
MAX_PROBABILITY_DIFFERENCE = PROBABILITY_TOLERANCES["fp32"]

# By name: resized uint8 [N, h, w, 3], and the model's own outputs.
Outputs = Mapping[str, NDArray[Any]]
_SUBJECTS = {PROBABILITIES: "a probability", EMBEDDING: "its embedding", OOD_SCORE: "its ood_score"}
ExportedModel = Callable[[NDArray[np.uint8]], Outputs]  # takes uint8 [N, H, W, 3]


def open_onnx(model: onnx.ModelProto, threads: int | None = None) -> ExportedModel:
    """``model`` in onnxruntime on the CPU; ``threads`` None: as many as there are cores."""
    content = with_outputs(model, [RESIZED]).SerializeToString()
    name = "the exported ONNX model"
    session = open_session(content, providers="cpu", threads=threads, name=name)
    names = [value.name for value in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {IMAGES: images}), strict=True))


def open_torchscript(content: bytes) -> ExportedModel:
    """A TorchScript file in torch."""
    with quiet():  # torch warns that it is deprecated
        module = torch.jit.load(io.BytesIO(content), map_location="cpu")

    def run(images: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            stages = module.stages(torch.from_numpy(images))
        return {name: rows.numpy() for name, rows in zip(STAGE_TENSORS, stages, strict=False)}

    return run


def open_program(content: bytes, classifier: DeployedClassifier) -> ExportedModel:
    """A torch.export program in torch.

    It has no output ``resized``, which is computed by ``classifier``, its source.
    """
    module = torch.export.load(io.BytesIO(content)).module()

    def run(images: NDArray[np.uint8]) -> Outputs:
        tensor = torch.from_numpy(images)
        with torch.inference_mode():
            outputs = dict(zip(OUTPUTS, module(tensor), strict=False))
            outputs[RESIZED] = classifier.preprocess.resize(tensor)
        return {name: rows.numpy() for name, rows in outputs.items()}

    return run


def verify(
    name: str,
    model: ExportedModel,
    references: Sequence[GoldenReference],
    max_difference: float = MAX_PROBABILITY_DIFFERENCE,
    sensitivity: float = 0.0,
) -> Verification:
    """Compare ``model`` with the references, each photo alone and in a batch with its negative.

    The batch shows whether outputs depend on batch composition. Raises ExportError naming the photo
    and the stage if a resized pixel differs, a probability by more than ``max_difference``, or an
    embedding or a score of this ``sensitivity`` by more than that allows.
    """
    limits = {
        LOGITS: math.inf,
        PROBABILITIES: max_difference,
        EMBEDDING: activation_limit(max_difference),
        OOD_SCORE: score_limit(max_difference, sensitivity),
    }
    largest = {
        stage: 0.0 for stage in limits if references and vars(references[0])[stage] is not None
    }
    for reference in references:
        alone = np.array(reference.pixels)[None]  # a copy: torch warns of read-only arrays
        for images in (alone, np.concatenate([alone, ~alone])):
            outputs = {stage: rows[0] for stage, rows in model(images).items()}
            if not np.array_equal(outputs[RESIZED], reference.resized):
                raise _mismatch(name, reference, "resized pixels differ")
            for stage in largest:
                if not np.isfinite(outputs[stage]).all():
                    raise _mismatch(name, reference, "an answer is not finite")
                difference = _max_difference(outputs[stage], vars(reference)[stage])
                if not difference <= limits[stage]:
                    what = f"{_SUBJECTS[stage]} differs by {difference:.2g}"
                    raise _mismatch(name, reference, what)
                largest[stage] = max(largest[stage], difference)
    return Verification(len(references), **largest)


def has_same_bits(model: onnx.ModelProto, references: Sequence[GoldenReference]) -> bool:
    """Whether logits are the same bits with one thread and two, alone and in a batch."""
    runs = [open_onnx(model, threads) for threads in (1, 2)]
    for reference in references:
        alone = np.array(reference.pixels)[None]
        batches = (alone, np.concatenate([alone, ~alone]))
        if len({run(batch)[LOGITS][0].tobytes() for run in runs for batch in batches}) > 1:
            return False
    return True


def verify_evidence(
    model: ExportedModel,
    network: MappedNetwork,
    spec: PreprocessSpec,
    references: Sequence[GoldenReference],
) -> None:
    """Compare the evidence of a float32 ``model`` with that of the trained network.

    Raises ExportError naming the photo if a place differs.
    """
    for reference in references:
        images = torch.from_numpy(normalize(reference.resized[None], spec))
        with torch.inference_mode():
            expected = network(images)[-1][0].numpy()
        found = model(np.array(reference.pixels)[None])[EVIDENCE][0]
        difference = _max_difference(found, expected)
        if not difference <= _EVIDENCE_TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise _mismatch("fp32 ONNX", reference, f"its evidence differs by {difference:.2g}")


def verify_evidence_sums(
    precision: str, outputs: Outputs, card: ModelCard, photo: GoldenReference
) -> None:
    """What the device's self-test will ask of the evidence that a reduced model gives for a photo.

    Raises ExportError if its sums are too far from the logits.
    """
    difference = _max_difference(outputs[EVIDENCE][0].sum((1, 2)) + card.biases, outputs[LOGITS][0])
    limit = logits_limit(SAME_MODEL_TOLERANCES[precision], card.temperature, photo.logits)
    if not difference <= limit:
        raise ExportError(
            f"The sums of the {precision} model's evidence are off its logits by up to "
            f"{difference:.2g} on {photo.source}; {limit:.2g} is allowed.",
            f"Nothing was written. Leave out --maps, or {precision}.",
        )


def _max_difference(values: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(values.astype(np.float64) - expected).max())


def _mismatch(name: str, reference: GoldenReference, what: str) -> ExportError:
    return ExportError(
        f"The exported {name} model does not give the trained network's answers: "
        f"{what} on {reference.source}.",
        "Nothing was written. Try another --opset, or another --format.",
    )
