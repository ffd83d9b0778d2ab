"""The network in 8-bit integers, by onnxruntime's static quantizer; the preprocessing in front of it stays exact.

Activations are unsigned 8-bit; weights are signed, one scale a channel, and keep to 7 bits. CPUs without VNNI add
pairs of products in 16 bits, where 255 × 127 × 2 saturates and 255 × 64 × 2 does not: with 7 bits every CPU gives
the same sums. Other ways to them cost speed: measured without VNNI, unsigned weights are also exact and half again as
slow, and signed activations exact and five times as slow. Depthwise convolutions have a kernel of their own, which
widens before it adds: their weights keep 8 bits, which they, having few of them a channel, need most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.errors import ExportError
from edgetl.exporting.precision.judge import run_network
from edgetl.exporting.precision.pad_channels import pad_channels
from edgetl.onnx_graph.tracing import quiet
from edgetl.runtime.bundle.tensor_names import NORMALIZED
from edgetl.runtime.inference.session import import_onnxruntime
from edgetl.system.progress import Progress, no_progress, track

MIN_OPSET = 13  # the first whose QuantizeLinear takes one scale a channel
_OLDEST = (1, 18)  # onnxruntime: before, its quantizer took other arguments
_EIGHT_BITS = {"axis": 0, "symmetric": True, "reduce_range": False}
LAYERS = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
)  # what is put back to float, one by one, where int8 falls short


class Quantizer:
    """Quantizes one network as often as needed, some of its layers left in float.

    network      ``normalized`` → ``logits``, of opset 13 or later
    calibration  photos that show the range of every value: normalized float32 [1, 3, h, w] each

    Raises ExportError where onnxruntime is too old.
    """

    def __init__(
        self, network: onnx.ModelProto, calibration: Iterable[NDArray[np.float32]]
    ) -> None:
        version = import_onnxruntime().__version__
        if tuple(map(int, version.split(".")[:2])) < _OLDEST:
            needed = ".".join(map(str, _OLDEST))
            raise ExportError(
                f"To write int8 needs onnxruntime {needed} or newer; this is {version}.",
                "Upgrade it.",
            )
        from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with TemporaryDirectory() as folder, quiet():
            plain, prepared, observed = (
                Path(folder, f"{name}.onnx") for name in ("plain", "prepared", "observed")
            )
            onnx.save_model(network, plain)
            quant_pre_process(plain, prepared, skip_symbolic_shape=True)
            self._network = onnx.load_model(prepared)
            calibrator = create_calibrator(
                prepared,
                _op_types(),
                augmented_model_path=str(observed),
                calibrate_method=CalibrationMethod.MinMax,
            )
            calibrator.collect_data(_Reader(iter(calibration)))
            self._ranges = calibrator.compute_data()

    @property
    def layers(self) -> list[str]:
        """Names of the nodes that hold weights, in order."""
        return [node.name for node in self._network.graph.node if node.op_type in LAYERS]

    def quantize(
        self,
        float_layers: Collection[str] = (),
        *,
        only: Collection[str] = (),
        layers_only: bool = False,
    ) -> onnx.ModelProto:
        """The network in int8 but for ``float_layers``.

        only         just these nodes in int8
        layers_only  just layers, so that what is between them (sums, gates, normalizations) stays in float
        """
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import QuantType

        copy = onnx.ModelProto()
        copy.CopyFrom(self._network)
        with quiet():
            quantizer = QDQQuantizer(
                copy,
                per_channel=True,
                reduce_range=True,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=list(only),
                nodes_to_exclude=list(float_layers),
                op_types_to_quantize=list(LAYERS) if layers_only else _op_types(),
                # The head's answers stay float: in 256 steps, labels close to each other would tie.
                extra_options={
                    "OpTypesToExcludeOutputQuantization": ["Gemm"],
                    "TensorQuantOverrides": {
                        name: [_EIGHT_BITS] for name in _depthwise_weights(copy.graph)
                    },
                },
            )
            quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
        pad_channels(quantized.graph)
        return quantized

    def worst_layers(
        self, samples: Iterable[NDArray[np.float32]], working: Progress = no_progress
    ) -> list[str]:
        """``layers``, those first whose quantization alone moves the logits of ``samples`` most."""
        inputs = list(samples)
        expected = run_network(self._network, inputs)
        damage = {
            layer: float(
                np.square(run_network(self.quantize(only=[layer]), inputs) - expected).mean()
            )
            for layer in track(self.layers, len(self.layers), "Trying each layer in int8", working)
        }
        return sorted(damage, key=lambda layer: damage[layer], reverse=True)


class _Reader:
    """The calibration photos as onnxruntime's calibrator asks for them."""

    def __init__(self, photos: Iterator[NDArray[np.float32]]) -> None:
        self._photos = photos

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        photo = next(self._photos, None)
        return None if photo is None else {NORMALIZED: photo}

    def __iter__(self) -> Iterator[dict[str, NDArray[np.float32]]]:
        return ({NORMALIZED: photo} for photo in self._photos)

    __next__: Any = get_next


def _depthwise_weights(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the weights of convolutions that see one channel for each that they make."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        if (
            node.op_type == "Conv"
            and groups > 1
            and shapes.get(node.input[1], ())[:2] == (groups, 1)
        ):
            yield node.input[1]


def _op_types() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})
