"""The whole classifier as one ONNX model: preprocessing, network, probabilities and metadata."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from edgetl._version import __version__
from edgetl.errors import ExportError, first_line
from edgetl.exporting.formats.onnx_ood_score import write_ood_score
from edgetl.exporting.formats.onnx_preprocess import write_preprocessing
from edgetl.onnx_graph.graph_writer import GraphWriter
from edgetl.runtime.bundle.bundle_folder import METADATA_KEY, card_metadata, schema_entries
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import (
    EMBEDDING,
    EVIDENCE,
    FEATURES,
    IMAGES,
    LOGITS,
    NORMALIZED,
    OOD_SCORE,
    PROBABILITIES,
    RESIZED,
)
from edgetl.training.models.ood_detector import OODDetector

PREFIX = "edgetl"  # of all names that are not the network's


def assemble(
    network: onnx.ModelProto, card: ModelCard, detector: OODDetector | None = None
) -> onnx.ModelProto:
    """Put the preprocessing before an exported network and the probabilities after it.

    ``images`` uint8 [N, H, W, 3] → ``logits`` and ``probabilities`` float32 [N, classes];
    ``resized`` (uint8 [N, h, w, 3]) and ``normalized`` (float32 [N, 3, h, w]) are values of the
    main graph. With ``detector``, ``network`` also gives ``features``, and the model ``ood_score``
    float32 [N] and ``embedding`` float32 [N, dimensions].
    A network's ``evidence`` float32 [N, classes, y, x] is an output, too.
    Raises ExportError if the result is not valid ONNX.
    """
    graph = GraphWriter(PREFIX)
    write_preprocessing(graph, card.spec, IMAGES)
    graph.nodes.extend(network.graph.node)
    scaled = graph.op("Div", LOGITS, np.float32(card.temperature))
    graph.op("Softmax", scaled, output=PROBABILITIES, axis=1)
    height, width = card.spec.fixed_size or ("h", "w")
    answers = ("N", len(card.labels))
    outputs = [_value(name, np.float32, answers) for name in (LOGITS, PROBABILITIES)]
    inner = []
    if detector is not None:
        write_ood_score(graph, detector, opset_of(network))
        features, dimensions = detector.projection.shape
        outputs.append(_value(OOD_SCORE, np.float32, ["N"]))
        outputs.append(_value(EMBEDDING, np.float32, ["N", dimensions]))
        inner.append(_value(FEATURES, np.float32, ["N", features]))
    outputs += [value for value in network.graph.output if value.name == EVIDENCE]
    whole = helper.make_graph(
        graph.nodes,
        PREFIX,
        [_value(IMAGES, np.uint8, ["N", "H", "W", 3])],
        outputs,
        [*network.graph.initializer, *graph.initializers.values()],
        value_info=[
            _value(RESIZED, np.uint8, ["N", height, width, 3]),
            _value(NORMALIZED, np.float32, ["N", 3, height, width]),
            *inner,
            *network.graph.value_info,
        ],
    )
    used = {node.domain for node in graph.nodes}
    opsets = [entry for entry in network.opset_import if entry.domain in used]
    model = helper.make_model(
        whole,
        opset_imports=opsets,
        functions=network.functions,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="edgetl",
        producer_version=__version__,
    )
    metadata = card_metadata(card, schema_entries(more_outputs=len(outputs) > 2))
    helper.set_model_props(model, {METADATA_KEY: metadata})
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # its own errors and protobuf's
        raise ExportError(f"The exported graph is not valid ONNX: {first_line(error)}") from error
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that ``model`` uses."""
    return next(
        int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")
    )


def _value(name: str, dtype: type, shape: Sequence[str | int]) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, element, shape)
