"""The trained network alone as an ONNX graph, of the lowest opset that its operators allow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import onnx
import torch
from torch import nn

from edgetl.errors import ExportError, first_line
from edgetl.exporting.formats.onnx_preprocess import MIN_OPSET
from edgetl.onnx_graph.fold_shapes import fold_shapes
from edgetl.onnx_graph.tracing import plain_attention, quiet
from edgetl.runtime.bundle.tensor_names import LOGITS, NORMALIZED
from edgetl.runtime.images.spec import PreprocessSpec

MAX_OPSET = 20  # the last one that torch's tracing exporter writes
RECORDED_OPSET = 18  # the lowest one that torch's other exporter writes
MAX_BYTES = 2**31 - 2**20  # protobuf's limit on one file, less room for the graph itself
EXAMPLE_SIDE = 224  # pixels; for a spec whose pictures have no fixed size


def example_input(spec: PreprocessSpec, photos: int = 2) -> torch.Tensor:
    """Noise of the network's input shape, float32 [photos, 3, h, w]."""
    height, width = spec.fixed_size or spec.resized_size(EXAMPLE_SIDE, EXAMPLE_SIDE)
    return torch.randn(photos, 3, height, width, generator=torch.Generator().manual_seed(0))


def export_network(
    network: nn.Module, spec: PreprocessSpec, opset: int | None = None
) -> onnx.ModelProto:
    """``network`` (in eval mode) → a model from ``normalized`` to ``logits``, weights inside.

    opset  exactly that one; None: the lowest from 12 on that works

    What can't be traced is recorded by torch.export, which knows more operators, but takes several times as long.

    Raises ExportError if no opset works, if ``opset`` is out of range, or if the file would be larger than 2 GB.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MAX_BYTES:
        raise ExportError(
            f"The network's weights take {size / 1e9:.1f} GB; one ONNX file holds 2 GB at most."
        )
    if opset is not None and not MIN_OPSET <= opset <= MAX_OPSET:
        raise ExportError(
            f"Opset {opset} can't be written.",
            f"Choose one from {MIN_OPSET} to {MAX_OPSET}, or none.",
        )
    try:
        return _trace(network, spec, opset)
    except ExportError:
        if opset is None or opset >= RECORDED_OPSET:
            with suppress(ExportError, OSError):
                return _write(_recorded, network, spec, opset or RECORDED_OPSET)
        raise
    except OSError as error:
        raise ExportError(
            f"The network can't be written as ONNX: {error.strerror or error} in {gettempdir()}.",
            "Free some space there, or have TMPDIR name another folder.",
        ) from error


def _trace(network: nn.Module, spec: PreprocessSpec, opset: int | None) -> onnx.ModelProto:
    if opset is not None:
        return _write(
            _traced,
            network,
            spec,
            opset,
            "A later opset may know the operator: try without --opset.",
        )
    with suppress(ExportError):
        return _write(_traced, network, spec, MIN_OPSET)
    # What the last one can't write either, none can: on a large network, each takes many seconds.
    latest = _write(
        _traced, network, spec, MAX_OPSET, "Choose another backbone, or --format torchscript."
    )
    for candidate in range(MIN_OPSET + 1, MAX_OPSET):
        with suppress(ExportError):
            return _write(_traced, network, spec, candidate)
    return latest


class _OfPixels(nn.Module):
    """``network``, asked for nothing but the logits: the exporter takes what ``forward`` has defaults for as inputs, too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, normalized: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(normalized)
        return logits


def _write(
    way: Callable[[nn.Module, PreprocessSpec, int], onnx.ModelProto],
    network: nn.Module,
    spec: PreprocessSpec,
    opset: int,
    hint: str | None = None,
) -> onnx.ModelProto:
    """Raises ExportError with ``hint`` if the network can't be written in ``opset``, OSError if there is no room for it."""
    try:
        with quiet(), torch.no_grad(), plain_attention():
            exported = way(
                _OfPixels(network).eval(), spec, opset
            )  # the exporter gives all parts the mode of the whole
        return fold_shapes(exported, (3, *spec.fixed_size)) if spec.fixed_size else exported
    except OSError:
        raise
    except (
        Exception
    ) as error:  # whatever the exporter meets: an operator that this opset lacks, mostly
        what, *_ = first_line(error).split("  [Caused by ")  # pages of values
        raise ExportError(f"The network can't be written as ONNX: {what}", hint) from error


def _traced(network: nn.Module, spec: PreprocessSpec, opset: int) -> onnx.ModelProto:
    sides = {} if spec.fixed_size else {2: "h", 3: "w"}
    with TemporaryDirectory() as folder:
        file = Path(folder, "network.onnx")
        torch.onnx.export(
            network,
            (example_input(spec),),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=[NORMALIZED],
            output_names=[LOGITS],
            dynamic_axes={NORMALIZED: {0: "N", **sides}, LOGITS: {0: "N"}},
        )
        return onnx.load_model(file)


def _recorded(network: nn.Module, spec: PreprocessSpec, opset: int) -> onnx.ModelProto:
    """Raises, among others, ValueError if it only holds for some batch sizes; old versions of torch and onnxscript raise
    for many a network."""
    free = dict.fromkeys([0] if spec.fixed_size else [0, 2, 3], torch.export.Dim.DYNAMIC)
    program = torch.onnx.export(
        network,
        (example_input(spec),),
        dynamo=True,
        opset_version=opset,
        input_names=[NORMALIZED],
        output_names=[LOGITS],
        dynamic_shapes=(free,),
        verbose=False,
    )
    assert program is not None  # as it is where a file is named
    exported = program.model_proto
    batch, answers = (
        values[0].type.tensor_type.shape.dim[0]
        for values in (exported.graph.input, exported.graph.output)
    )
    if not batch.dim_param or answers.dim_param != batch.dim_param:
        raise ValueError("it gives other numbers of answers than of photos")
    _forget_the_source(exported.graph)
    return exported


def _forget_the_source(graph: onnx.GraphProto) -> None:
    """Each node says in which line of which file it was computed: a device needs none, and paths are private."""
    del graph.value_info[:]
    for node in graph.node:
        del node.metadata_props[:]
        for attribute in node.attribute:
            for inner in (*[attribute.g] * attribute.HasField("g"), *attribute.graphs):
                _forget_the_source(inner)
