"""Smaller versions of the network, none of which may cost more accuracy than allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.errors import ExportError
from edgetl.exporting.precision.judge import LEAST_AGREEMENT, Judge, Judgement
from edgetl.exporting.precision.photo_inputs import Pictures
from edgetl.exporting.precision.quantize import Quantizer
from edgetl.onnx_graph.tracing import quiet
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.progress import Progress, no_progress, track

RANKING_PHOTOS = 8  # that tell which layer suffers most from int8


@dataclass(frozen=True)
class JudgedBy:
    """The photos that a smaller model is made and judged with.

    calibration        training photos, for the range of each value in int8
    validation         every validation photo with the index of its label
    max_accuracy_drop  percentage points of validation accuracy that may be lost
    """

    calibration: Sequence[Path]
    validation: Sequence[tuple[Path, int]]
    max_accuracy_drop: float


def to_half(
    network: onnx.ModelProto, card: ModelCard, judged_by: JudgedBy, working: Progress = no_progress
) -> tuple[onnx.ModelProto, Judgement]:
    """``network`` in 16-bit floats, its input and output still float32. Raises ExportError if it loses too much."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    with quiet():
        half: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    ONNXModel(half).topological_sort()  # the converter appends the input's cast at the end
    judgement = Judge(network, card, judged_by.validation, working).judge(half, "fp16")
    if not judgement.drop <= judged_by.max_accuracy_drop:
        raise _refusal("fp16", judgement, judged_by)
    return half, judgement


def to_int8(
    network: onnx.ModelProto, card: ModelCard, judged_by: JudgedBy, working: Progress = no_progress
) -> tuple[onnx.ModelProto, Judgement]:
    """``network`` (opset 13 or later) in 8-bit integers, but for what would cost too much accuracy.

    First what is between the layers goes back to float, then layers, those first that suffer most, in steps that
    double. So it does while it answers many photos otherwise than ``network``, beyond the accuracy that it may lose: what
    agrees most is taken. Raises ExportError if half of the layers in float is not enough.
    """
    if not judged_by.calibration:
        raise ExportError("There are no training photos to calibrate int8 with.")
    calibration = Pictures(judged_by.calibration, card.spec)
    quantizer = Quantizer(
        network, track(calibration, len(calibration), "Calibrating int8", working)
    )
    judge = Judge(network, card, judged_by.validation, working)
    best: tuple[onnx.ModelProto, Judgement] | None = None
    for name, quantized, float_layers in _attempts(
        quantizer, islice(calibration, RANKING_PHOTOS), working
    ):
        judgement = judge.judge(quantized, name, float_layers)
        if judgement.drop <= judged_by.max_accuracy_drop and (
            best is None or judgement.agreement > best[1].agreement
        ):
            best = quantized, judgement
        if (
            best is not None
            and best[1].agreement >= LEAST_AGREEMENT - judged_by.max_accuracy_drop / 100
        ):
            break
    if best is None:
        raise _refusal("int8", judgement, judged_by)
    return best


def _attempts(
    quantizer: Quantizer, samples: Iterable[NDArray[np.float32]], working: Progress
) -> Iterator[tuple[str, onnx.ModelProto, list[str]]]:
    """Models with more and more in float: what to call each, and its layers in float."""
    yield "int8", quantizer.quantize(), []
    yield "int8 of the layers alone", quantizer.quantize(layers_only=True), []
    ranking = quantizer.worst_layers(samples, working)
    half = (len(ranking) + 1) // 2
    for count in [*takewhile(half.__gt__, (2**step for step in range(half))), half]:
        name = f"int8, {count} of {len(ranking)} layers in float"
        yield name, quantizer.quantize(ranking[:count], layers_only=True), ranking[:count]


def _refusal(precision: str, judgement: Judgement, judged_by: JudgedBy) -> ExportError:
    floats = (
        f", with {len(judgement.float_layers)} layers in float" if judgement.float_layers else ""
    )
    return ExportError(
        f"The {precision} model loses {judgement.drop:.2f} points of accuracy on {judgement.photos} validation photos "
        f"({judgement.fp32_accuracy:.1%} → {judgement.accuracy:.1%}{floats}); {judged_by.max_accuracy_drop:g} are allowed.",
        "Nothing was written. Allow more with --max-accuracy-drop, or leave this precision out.",
    )
