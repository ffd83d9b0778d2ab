"""Networks in fp16 and int8 that keep the accuracy of the float32 one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.errors import ExportError
from edgetl.exporting.export_result import MIN_AGREEMENT, AccuracyComparison
from edgetl.exporting.precision.accuracy import AccuracyEvaluator
from edgetl.exporting.precision.normalized_photos import NormalizedPhotos
from edgetl.exporting.precision.portable_bits import input_values, why_not_portable
from edgetl.exporting.precision.quantize import Quantizer
from edgetl.onnx_graph.tracing import quiet
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.progress import Progress, no_progress, track

RANKING_PHOTOS = 8  # on which layers are ranked by how much int8 harms them


@dataclass(frozen=True)
class PrecisionSettings:
    """Photos and limits for reduced precisions.

    calibration        training photos that show int8 the range of each value
    validation         all validation photos with the indices of their labels
    max_accuracy_drop  percentage points of validation accuracy that may be lost
    trained_on         number of validation photos that the network was trained on
    """

    calibration: Sequence[Path]
    validation: Sequence[tuple[Path, int]]
    max_accuracy_drop: float
    trained_on: int = 0


def convert_to_fp16(
    network: onnx.ModelProto,
    card: ModelCard,
    settings: PrecisionSettings,
    progress: Progress = no_progress,
) -> tuple[onnx.ModelProto, AccuracyComparison]:
    """``network`` in 16-bit floats, its input and output still float32.

    Raises ExportError if it loses too much accuracy.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        converted: onnx.ModelProto = convert_float_to_float16(deepcopy(network), keep_io_types=True)
    ONNXModel(converted).topological_sort()  # the converter appends the input's cast at the end
    evaluator = AccuracyEvaluator(network, card, settings.validation, progress)
    compared = evaluator.evaluate(converted, "fp16")
    if not compared.drop <= settings.max_accuracy_drop:
        raise _too_inaccurate("fp16", compared, settings)
    return converted, compared


def convert_to_int8(
    network: onnx.ModelProto,
    card: ModelCard,
    settings: PrecisionSettings,
    progress: Progress = no_progress,
) -> tuple[onnx.ModelProto, AccuracyComparison]:
    """``network`` (opset 13 or later) in 8-bit integers, except where that loses too much.

    While too much accuracy is lost, or more labels change than MIN_AGREEMENT and the accuracy that
    may be lost explain, parts return to float: first what is between the layers, then layers, those
    that int8 harms most first, in steps that double. Of the models that are accurate enough, the
    one that agrees most with ``network`` is taken.

    Whether its logits are the same bits on every processor is known from its structure.

    Raises ExportError if none is accurate enough with half of the layers in float.
    """
    if not settings.calibration:
        raise ExportError(
            "There are no training photos to calibrate int8 with.",
            "Name some with --calibration-images DIR; they need no labels.",
        )
    photos = NormalizedPhotos(settings.calibration, card.spec)
    tracked = track(photos, len(photos), "Calibrating int8", progress)
    quantizer = Quantizer(network, tracked, input_values(card.spec))
    evaluator = AccuracyEvaluator(network, card, settings.validation, progress)
    best: tuple[onnx.ModelProto, AccuracyComparison] | None = None
    samples = islice(photos, RANKING_PHOTOS)
    for name, quantized, float_layers in _candidates(quantizer, samples, progress):
        compared = evaluator.evaluate(quantized, name, float_layers)
        if compared.drop <= settings.max_accuracy_drop and (
            best is None or compared.agreement > best[1].agreement
        ):
            best = quantized, compared
        if best and best[1].agreement >= MIN_AGREEMENT - settings.max_accuracy_drop / 100:
            break
    if best is None:
        raise _too_inaccurate("int8", compared, settings)
    quantized, compared = best
    reason = why_not_portable(quantized, card.spec)
    return quantized, replace(compared, portable_bits=not reason, why_not_portable=reason)


def _candidates(
    quantizer: Quantizer, samples: Iterable[NDArray[np.float32]], progress: Progress
) -> Iterator[tuple[str, onnx.ModelProto, list[str]]]:
    """(name, model, layers in float), with more and more in float."""
    yield "int8", quantizer.quantize(), []
    yield "int8 of the layers alone", quantizer.quantize(layers_only=True), []
    ranking = quantizer.rank_layers(samples, progress)
    half = (len(ranking) + 1) // 2
    for count in [*takewhile(half.__gt__, (2**step for step in range(half))), half]:
        name = f"int8, {count} of {len(ranking)} layers in float"
        yield name, quantizer.quantize(ranking[:count], layers_only=True), ranking[:count]


def _too_inaccurate(
    precision: str, compared: AccuracyComparison, settings: PrecisionSettings
) -> ExportError:
    layers = len(compared.float_layers)
    return ExportError(
        f"The {precision} model loses {compared.drop:.2f} points of accuracy on {compared.photos} "
        f"validation photos ({compared.fp32_accuracy:.1%} → {compared.accuracy:.1%}"
        f"{f', with {layers} layers in float' if layers else ''}); "
        f"{settings.max_accuracy_drop:g} are allowed.",
        "Nothing was written. Allow more with --max-accuracy-drop, or leave this precision out.",
    )
