"""The trained network alone as an ONNX graph, of the lowest opset that its operators allow."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import onnx
import torch
from torch import nn

from edgetl.errors import ExportError, first_line
from edgetl.export.fold_shapes import fold_shapes
from edgetl.export.onnx_preprocess import MIN_OPSET
from edgetl.runtime.spec import PreprocessSpec
from edgetl.tracing import plain_attention, quiet

INPUT, OUTPUT = "normalized", "logits"
MAX_OPSET = 20  # the last one that torch's tracing exporter writes
MAX_BYTES = 2**31 - 2**20  # protobuf's limit on one file, less room for the graph itself
EXAMPLE_SIDE = 224  # pixels; for a spec whose pictures have no fixed size


def example_input(spec: PreprocessSpec, photos: int = 2) -> torch.Tensor:
    """Noise of the network's input shape, float32 [photos, 3, h, w]."""
    height, width = spec.fixed_size or spec.resized_size(EXAMPLE_SIDE, EXAMPLE_SIDE)
    return torch.randn(photos, 3, height, width, generator=torch.Generator().manual_seed(0))


def export_network(network: nn.Module, spec: PreprocessSpec, opset: int | None = None) -> onnx.ModelProto:
    """``network`` (in eval mode) → a model from ``normalized`` to ``logits``, weights inside.

    opset  exactly that one; None: the lowest from 12 on that works

    Raises ExportError if no opset works, if ``opset`` is out of range, or if the file would be larger than 2 GB.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MAX_BYTES:
        raise ExportError(f"The network's weights take {size / 1e9:.1f} GB; one ONNX file holds 2 GB at most.")
    if opset is not None and not MIN_OPSET <= opset <= MAX_OPSET:
        raise ExportError(f"Opset {opset} can't be written.", f"Choose one from {MIN_OPSET} to {MAX_OPSET}, or none.")
    try:
        if opset is not None:
            return _trace(network, spec, opset, "A later opset may know the operator: try without --opset.")
        return _lowest(network, spec)
    except OSError as error:
        raise ExportError(
            f"The network can't be written as ONNX: {error.strerror or error} in {gettempdir()}.",
            "Free some space there, or have TMPDIR name another folder.",
        ) from error


def _lowest(network: nn.Module, spec: PreprocessSpec) -> onnx.ModelProto:
    with suppress(ExportError):
        return _trace(network, spec, MIN_OPSET, "")
    # What the last one can't write either, none can: on a large network, each takes many seconds.
    latest = _trace(network, spec, MAX_OPSET, "Choose another backbone, or --format torchscript.")
    for candidate in range(MIN_OPSET + 1, MAX_OPSET):
        with suppress(ExportError):
            return _trace(network, spec, candidate, "")
    return latest


class _OfPixels(nn.Module):
    """``network``, asked for nothing but the logits: the exporter takes what ``forward`` has defaults for as inputs, too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, normalized: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(normalized)
        return logits


def _trace(network: nn.Module, spec: PreprocessSpec, opset: int, hint: str) -> onnx.ModelProto:
    """Raises ExportError with ``hint`` if the network can't be written in ``opset``, OSError if there is no room for it."""
    try:
        return _traced(network, spec, opset)
    except OSError:
        raise
    except Exception as error:  # whatever the exporter meets: an operator that this opset lacks, mostly
        raise ExportError(f"The network can't be written as ONNX: {first_line(error)}", hint) from error


def _traced(network: nn.Module, spec: PreprocessSpec, opset: int) -> onnx.ModelProto:
    sides = {} if spec.fixed_size else {2: "h", 3: "w"}
    with quiet(), torch.no_grad(), plain_attention(), TemporaryDirectory() as folder:
        file = Path(folder, "network.onnx")
        torch.onnx.export(
            _OfPixels(network).eval(),  # the exporter gives all parts the mode of the whole
            (example_input(spec),),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "N", **sides}, OUTPUT: {0: "N"}},
        )
        exported = onnx.load_model(file)
    return fold_shapes(exported, (3, *spec.fixed_size)) if spec.fixed_size else exported
