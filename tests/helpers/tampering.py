"""Mistakes that an exporter could make: each function changes one thing in an exported model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgetl.exporting.formats.onnx_preprocess import write_resize
from edgetl.onnx_graph.graph_writer import GraphWriter
from edgetl.runtime.bundle.bundle_folder import (
    MANIFEST,
    METADATA_KEY,
    card_metadata,
    manifest_bytes,
)
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec

Tamper = Callable[[onnx.ModelProto, PreprocessSpec], None]


def tamper_with_onnx(bundle: Path, spec: PreprocessSpec, tamper: Tamper) -> None:
    """Change model.onnx in ``bundle`` and its checksum, so that only the predictions show it."""
    file = bundle / "model.onnx"
    model = onnx.load(file)
    tamper(model, spec)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
    sign(bundle)


def sign(bundle: Path, **changes: object) -> None:
    """Rewrite the manifest with new checksums of the files, and ``changes`` to its entries."""
    manifest = {**json.loads((bundle / MANIFEST).read_bytes()), **changes}
    contents = {
        path.relative_to(bundle).as_posix(): path.read_bytes()
        for path in bundle.rglob("*")
        if path.is_file() and path != bundle / MANIFEST
    }
    manifest["files"] = {
        n: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for n, c in contents.items()
    }
    (bundle / MANIFEST).write_bytes(manifest_bytes(manifest))


def change_spec(bundle: Path, card: ModelCard, **changes: Any) -> None:
    """Of the card in the manifest and in model.onnx, as if it had been exported so."""
    card = replace(card, spec=replace(card.spec, **changes))
    model = onnx.load(bundle / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = card_metadata(card)
    onnx.save(model, bundle / "model.onnx")
    sign(bundle, card=card.to_dict())


def weight(model: onnx.ModelProto, spec: PreprocessSpec, by: float = 0.05) -> None:
    """One weight of the head, moved."""
    head = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == head.input[1])
    values = numpy_helper.to_array(tensor).copy()
    values.flat[7] += by
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def mean(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    _change_constant(
        model, spec.normalization[1], replace(spec, mean=(0.485, 0.456, 0.406)).normalization[1]
    )


def std(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    _change_constant(
        model, spec.normalization[0], replace(spec, std=(0.25, 0.22, 0.301)).normalization[0]
    )


def bilinear(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    _replace_resize(
        model, lambda graph: write_resize(graph, replace(spec, interpolation="bilinear"), "images")
    )


def crop_moved(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    """The crop starts one pixel lower."""
    assert spec.crop is not None and isinstance(spec.size, tuple)
    top, left = spec.crop_origin(*spec.size)
    start = np.array([top + 1, left])

    def write(graph: GraphWriter) -> str:
        whole = _renamed_resize(graph, replace(spec, crop=None), "images")
        return graph.op(
            "Slice", whole, start, start + np.array(spec.crop), np.array([1, 2]), output="resized"
        )

    _replace_resize(model, write)


def vertical_first(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    """The resize of the transposed picture, transposed back."""
    assert spec.crop is not None and isinstance(spec.size, tuple)
    turned = replace(spec, size=spec.size[::-1], crop=spec.crop[::-1])

    def write(graph: GraphWriter) -> str:
        resized = _renamed_resize(graph, turned, graph.op("Transpose", "images", perm=[0, 2, 1, 3]))
        return graph.op("Transpose", resized, perm=[0, 2, 1, 3], output="resized")

    _replace_resize(model, write)


def bgr(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    swap = np.array([2, 1, 0])
    _replace_resize(
        model, lambda graph: write_resize(graph, spec, graph.op("Gather", "images", swap, axis=3))
    )


def plain_resize(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    """The Resize operator of opset 16, which has no antialiasing."""
    assert spec.crop is not None and isinstance(spec.size, tuple)
    start = np.array(spec.crop_origin(*spec.size))

    def write(graph: GraphWriter) -> str:
        pixels = graph.cast(graph.op("Transpose", "images", perm=[0, 3, 1, 2]), np.float32)
        shape = graph.op("Shape", pixels)
        kept = graph.op("Slice", shape, np.array([0]), np.array([2]))
        sizes = graph.op("Concat", kept, np.array(spec.size), axis=0)
        resized = graph.op("Resize", pixels, "", "", sizes, mode="linear")
        cropped = graph.op("Slice", resized, start, start + np.array(spec.crop), np.array([2, 3]))
        rounded = graph.op("Clip", graph.op("Round", cropped), np.float32(0), np.float32(255))
        return graph.op(
            "Transpose", graph.cast(rounded, np.uint8), perm=[0, 2, 3, 1], output="resized"
        )

    _replace_resize(model, write)


def softmax_twice(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    for node in model.graph.node:
        node.output[:] = ["once" if name == "probabilities" else name for name in node.output]
    model.graph.node.append(helper.make_node("Softmax", ["once"], ["probabilities"], axis=1))


def mixed(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    """Every photo gets the mean of the batch's logits."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["own logits" if name == "logits" else name for name in names]
    first = next(index for index, node in enumerate(model.graph.node) if "own logits" in node.input)
    nodes = [
        helper.make_node("ReduceMean", ["own logits"], ["mean logits"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["own logits", "own logits"], ["zeros"]),
        helper.make_node("Add", ["zeros", "mean logits"], ["logits"]),
    ]
    for node in model.graph.node[first:]:
        node.input[:] = ["logits" if name == "own logits" else name for name in node.input]
    for offset, node in enumerate(nodes):
        model.graph.node.insert(first + offset, node)


def not_a_number(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    """The head's bias holds a NaN."""
    head = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == head.input[2])
    values = numpy_helper.to_array(tensor).copy()
    values[1] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _change_constant(model: onnx.ModelProto, before: np.ndarray, after: np.ndarray) -> None:
    same = [
        t
        for t in model.graph.initializer
        if np.array_equal(numpy_helper.to_array(t).ravel(), before)
    ]
    assert len(same) == 1
    values = numpy_helper.to_array(same[0])
    same[0].CopyFrom(numpy_helper.from_array(after.reshape(values.shape), same[0].name))


def _replace_resize(model: onnx.ModelProto, write: Callable[[GraphWriter], str]) -> None:
    """Replace the nodes that make ``resized``; those that are no longer used stay in the graph."""
    for node in model.graph.node:
        node.output[:] = ["resized before" if name == "resized" else name for name in node.output]
    graph = GraphWriter("tampered")
    assert write(graph) == "resized"
    nodes = [*graph.nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(graph.initializers.values())


def _renamed_resize(graph: GraphWriter, spec: PreprocessSpec, images: str) -> str:
    """``write_resize`` with another name for its output, so that ``resized`` stays free."""
    write_resize(graph, spec, images)
    last = graph.nodes[-1]
    last.output[:] = ["tampered/resized"]
    return "tampered/resized"
