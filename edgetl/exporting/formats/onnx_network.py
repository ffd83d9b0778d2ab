"""The trained network alone as an ONNX model, of the lowest opset that its operators allow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from tempfile import gettempdir

import onnx
import torch
from torch import nn

from edgetl.errors import ExportError, first_line
from edgetl.exporting.formats.onnx_preprocess import MIN_OPSET
from edgetl.onnx_graph.constant_folding import fold_shape_constants
from edgetl.onnx_graph.log_softmax import merge_log_softmax
from edgetl.onnx_graph.tracing import plain_attention, quiet
from edgetl.runtime.bundle.tensor_names import LOGITS, NORMALIZED
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.temporary_folder import scratch_folder
from edgetl.training.models.tapped_network import TappedNetwork, outputs_of

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
    """``network`` (in eval mode) as a model from ``normalized`` to ``logits``, weights inside.

    A TappedNetwork's other outputs are the model's, too, under their names.

    opset  exactly this one; None: the lowest from 12 on that works

    What can't be traced is recorded by torch.export, which knows more operators, but takes several
    times as long.

    Raises ExportError if no opset works, if ``opset`` is out of range, or if the file would be
    larger than 2 GB.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MAX_BYTES:
        raise ExportError(
            f"The network's weights take {size / 1e9:.1f} GB; one ONNX file holds at most 2 GB."
        )
    if opset is not None and not MIN_OPSET <= opset <= MAX_OPSET:
        raise ExportError(
            f"Opset {opset} can't be written.",
            f"Choose one from {MIN_OPSET} to {MAX_OPSET}, or none.",
        )
    try:
        return _trace_in_lowest_opset(network, spec, opset)
    except ExportError:
        if opset is None or opset >= RECORDED_OPSET:
            with suppress(ExportError, OSError):
                return _export(record_network, network, spec, opset or RECORDED_OPSET)
        raise
    except OSError as error:
        raise ExportError(
            f"The network can't be written as ONNX: {error.strerror or error} in {gettempdir()}.",
            "Free some space there, or set TMPDIR to another folder.",
        ) from error


def _trace_in_lowest_opset(
    network: nn.Module, spec: PreprocessSpec, opset: int | None
) -> onnx.ModelProto:
    if opset is not None:
        hint = "A later opset may have the operator: try without --opset."
        return _export(trace_network, network, spec, opset, hint)
    with suppress(ExportError):
        return _export(trace_network, network, spec, MIN_OPSET)
    # What the last one can't express either, none can: each takes many seconds on a large network.
    hint = "Choose another backbone, or --format torchscript."
    latest = _export(trace_network, network, spec, MAX_OPSET, hint)
    for candidate in range(MIN_OPSET + 1, MAX_OPSET):
        with suppress(ExportError):
            return _export(trace_network, network, spec, candidate)
    return latest


class _OneInput(nn.Module):
    """``network`` without optional inputs, which the exporter would make inputs of the graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, normalized: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(normalized)
        return logits


def _export(
    exporter: Callable[[nn.Module, PreprocessSpec, int], onnx.ModelProto],
    network: nn.Module,
    spec: PreprocessSpec,
    opset: int,
    hint: str | None = None,
) -> onnx.ModelProto:
    """Raises ExportError with ``hint`` if ``exporter`` fails, OSError if it can't write."""
    # A program is converted, not called.
    if not isinstance(network, (torch.jit.ScriptModule, TappedNetwork)):
        # eval() on the wrapper, too: the exporter puts all parts into the mode of the whole.
        network = _OneInput(network).eval()
    try:
        with quiet(), torch.no_grad(), plain_attention():
            exported = exporter(network, spec, opset)
        if spec.fixed_size:
            exported = fold_shape_constants(exported, (3, *spec.fixed_size))
            merge_log_softmax(exported)
        return exported
    except OSError:
        raise
    except Exception as error:  # often an operator that the opset lacks; there is no base class
        what, *_ = first_line(error).split("  [Caused by ")  # pages of values
        raise ExportError(f"The network can't be written as ONNX: {what}", hint) from error


def trace_network(network: nn.Module, spec: PreprocessSpec, opset: int) -> onnx.ModelProto:
    """By torch's exporter that is based on TorchScript's trace."""
    outputs = [LOGITS, *outputs_of(network)]
    sides = {} if spec.fixed_size else {2: "h", 3: "w"}
    with scratch_folder("edgetl-export") as folder:
        file = folder / "network.onnx"
        torch.onnx.export(
            network,
            (example_input(spec),),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=[NORMALIZED],
            output_names=outputs,
            dynamic_axes={NORMALIZED: {0: "N", **sides}, **{name: {0: "N"} for name in outputs}},
        )
        return onnx.load_model(file)


def record_network(network: nn.Module, spec: PreprocessSpec, opset: int) -> onnx.ModelProto:
    """By torch's exporter that is based on torch.export.

    Raises ValueError if the model only holds for some batch sizes, and whatever the exporter
    raises; old versions of torch and onnxscript fail on many networks.
    """
    dynamic = dict.fromkeys([0] if spec.fixed_size else [0, 2, 3], torch.export.Dim.DYNAMIC)
    program = torch.onnx.export(
        network,
        (example_input(spec),),
        dynamo=True,
        opset_version=opset,
        input_names=[NORMALIZED],
        output_names=[LOGITS, *outputs_of(network)],
        dynamic_shapes=(dynamic,),
        verbose=False,
    )
    assert program is not None  # it is only where a file is named
    model = program.model_proto
    batch, *answers = (
        value.type.tensor_type.shape.dim[0].dim_param
        for value in (model.graph.input[0], *model.graph.output)
    )
    if not batch or set(answers) != {batch}:
        raise ValueError("the number of its answers is not the number of photos")
    _remove_source_locations(model.graph)
    return model


def _remove_source_locations(graph: onnx.GraphProto) -> None:
    """Remove the file and line that each node came from: paths are private."""
    del graph.value_info[:]
    for node in graph.node:
        del node.metadata_props[:]
        for attribute in node.attribute:
            for inner in (*[attribute.g] * attribute.HasField("g"), *attribute.graphs):
                _remove_source_locations(inner)
