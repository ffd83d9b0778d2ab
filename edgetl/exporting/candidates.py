"""Untrained models of several backbones and sizes, written to be measured on a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgetl.errors import ExportError
from edgetl.exporting.formats.onnx_model import assemble, opset_of
from edgetl.exporting.formats.onnx_network import example_input, export_network
from edgetl.exporting.precision.quantize import INT8_MIN_OPSET, Quantizer
from edgetl.runtime.bundle.candidates_file import (
    CLASSES,
    CandidateModel,
    DrawnWeights,
    write_candidates_file,
)
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.progress import Progress, no_progress, track
from edgetl.training.config.candidate_names import CandidateName
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine.run_backbone import build_backbone
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import EMBEDDED
from edgetl.training.torch_env.torch_flags import one_thread

SIZES = (192, 224, 256, 288, 320)
"""Sides of the input, pixels, at which an embedded backbone is compared."""
_LABELS = tuple(map(str, range(CLASSES)))
_WEIGHT_BYTES = {"fp32": 4, "int8": 1}
_CALIBRATION = 2  # pictures of noise; ranges don't change the time


def write_candidates(
    path: Path, names: Sequence[CandidateName] = (), progress: Progress = no_progress
) -> list[CandidateModel]:
    """Write the file that ``edgetl bench`` measures → the models in it.

    names  what to compare; a name without a size means the usual ones: ``SIZES`` for an embedded
           backbone, else the published size. None: all embedded backbones

    Raises TrainingError for an unknown backbone or a size that it does not take, ExportError if a
    model or the file can't be written.
    """
    wanted = _sized(names or [CandidateName(name) for name in EMBEDDED])
    candidates: list[CandidateModel] = []
    with one_thread():
        for name in track(wanted, len(wanted), "Writing candidates", progress):
            candidates += _in_every_precision(name)
    try:
        write_candidates_file(path, candidates)
    except OSError as error:
        raise ExportError(f"{path} can't be written: {error.strerror or error}.") from error
    return candidates


def _sized(names: Sequence[CandidateName]) -> list[CandidateName]:
    """With a size each, if it is not the published one; each once."""
    sized = (
        CandidateName(name.backbone, size)
        for name in names
        for size in (SIZES if name.backbone in EMBEDDED and not name.image_size else [name[1]])
    )
    return list(dict.fromkeys(sized))


def _in_every_precision(name: CandidateName) -> Iterator[CandidateModel]:
    settings = TrainSettings(
        "", backbone=name.backbone, image_size=name.image_size, weights="none", resize="published"
    )
    backbone = build_backbone(settings, _LABELS)
    network, spec = backbone.module.eval(), backbone.spec
    exported = export_network(network, spec)
    yield _candidate(backbone, "fp32", exported)
    if opset_of(exported) < INT8_MIN_OPSET:
        exported = export_network(network, spec, INT8_MIN_OPSET)
    noise = example_input(spec, _CALIBRATION).numpy()
    yield _candidate(
        backbone, "int8", Quantizer(exported, np.split(noise, _CALIBRATION)).quantize()
    )


def _candidate(backbone: Backbone, precision: str, network: onnx.ModelProto) -> CandidateModel:
    card = ModelCard(_LABELS, backbone.spec, backbone.name)
    rest, weights = without_weights(assemble(network, card))
    head = backbone.head_layer
    class_bytes = head.weight[0].numel() * _WEIGHT_BYTES[precision]
    return CandidateModel(backbone.name, min(backbone.size), precision, class_bytes, rest, weights)


def without_weights(model: onnx.ModelProto) -> tuple[bytes, list[DrawnWeights]]:
    """(the model file without its matrices and filters, what these are drawn from)."""
    arrays = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim > 1 and values.size and values.dtype in (np.float32, np.int8):
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))  # as plain bytes
            arrays.append(values)
    content = model.SerializeToString()
    parts, weights, end = [], [], 0
    for values in arrays:  # in the file, too, they are in this order
        raw = values.tobytes()
        position = content.index(raw, end)
        parts.append(content[end:position])
        end = position + len(raw)
        of = values.astype(np.float64)
        moments = float(of.mean()), float(of.std()), float(of.min()), float(of.max())
        weights.append(DrawnWeights(position, values.dtype.str, values.size, *moments))
    return b"".join([*parts, content[end:]]), weights
