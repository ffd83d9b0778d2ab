"""The resize of the exported graph alone, as an ONNX model."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edgetl.exporting.formats.onnx_preprocess import MIN_OPSET, write_resize
from edgetl.onnx_graph.graph_writer import GraphWriter
from edgetl.runtime.images.spec import PreprocessSpec


def resize_model(spec: PreprocessSpec, opset: int = MIN_OPSET) -> onnx.ModelProto:
    """``images`` uint8 [N, H, W, 3] → ``resized`` uint8 [N, h, w, 3]."""
    writer = GraphWriter("resize")
    write_resize(writer, spec, "images")
    height, width = spec.fixed_size or ("h", "w")
    images, resized = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, shape)
        for name, shape in (("images", ["N", "H", "W", 3]), ("resized", ["N", height, width, 3]))
    )
    constants = list(writer.initializers.values())
    graph = helper.make_graph(writer.nodes, "resize", [images], [resized], constants)
    opsets = [helper.make_opsetid("", opset)]
    version = helper.find_min_ir_version_for(opsets)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=version)
    onnx.checker.check_model(model, full_check=True)
    return model
