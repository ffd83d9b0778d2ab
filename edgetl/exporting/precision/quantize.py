"""The network in 8-bit integers, by onnxruntime's static quantizer; the preprocessing stays exact.

Activations are unsigned 8-bit integers. Weights are signed, have one scale per channel, and use
7 bits: CPUs without VNNI add pairs of products in 16 bits, where 255 × 127 × 2 saturates and
255 × 64 × 2 does not, so that with 7 bits every CPU gives the same sums. Other ways to exact sums
are slower: measured without VNNI, unsigned weights by half, signed activations five times.
Depthwise convolutions have a kernel of their own, which widens before it adds: their weights use
8 bits, which they need most, having few weights per channel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.errors import ExportError
from edgetl.exporting.precision.accuracy import run_network
from edgetl.exporting.precision.exact_scales import exact_scales
from edgetl.exporting.precision.global_means import pool_means
from edgetl.exporting.precision.negligible_weights import clear_negligible_weights
from edgetl.exporting.precision.pad_channels import pad_channels
from edgetl.onnx_graph.graph_editing import int_attribute
from edgetl.onnx_graph.tracing import quiet
from edgetl.runtime.bundle.tensor_names import NORMALIZED
from edgetl.runtime.inference.session import import_onnxruntime
from edgetl.system.progress import Progress, no_progress, track
from edgetl.system.temporary_folder import scratch_folder

INT8_MIN_OPSET = 13  # the first whose QuantizeLinear takes one scale per channel
_MIN_ONNXRUNTIME = (1, 18)  # before, its quantizer had other arguments
_EIGHT_BITS = {"axis": 0, "symmetric": True, "reduce_range": False}
# Operators with weights, which return to float one by one where int8 is not accurate enough.
_QUANTIZED_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Quantizer:
    """Quantizes one network repeatedly, with some of its layers in float.

    network      ``normalized`` → ``logits``, of opset 13 or later
    calibration  photos that show the range of every value: normalized float32 [1, 3, h, w] each
    input_values  all values that ``normalized`` takes; None: unknown

    Raises ExportError if onnxruntime is too old.
    """

    def __init__(
        self,
        network: onnx.ModelProto,
        calibration: Iterable[NDArray[np.float32]],
        input_values: NDArray[np.float32] | None = None,
    ) -> None:
        self._input_values = input_values
        version = import_onnxruntime().__version__
        if tuple(map(int, version.split(".")[:2])) < _MIN_ONNXRUNTIME:
            minimum = ".".join(map(str, _MIN_ONNXRUNTIME))
            raise ExportError(
                f"int8 needs onnxruntime {minimum} or newer; this is {version}.", "Upgrade it."
            )
        from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with scratch_folder("edgetl-export") as folder, quiet():
            original, prepared, augmented = (
                folder / f"{name}.onnx" for name in ("original", "prepared", "augmented")
            )
            pooled = deepcopy(network)
            pool_means(pooled)
            onnx.save_model(pooled, original)
            quant_pre_process(original, prepared, skip_symbolic_shape=True)
            self._network = onnx.load_model(prepared)
            calibrator = create_calibrator(
                prepared,
                _op_types(),
                augmented_model_path=str(augmented),
                calibrate_method=CalibrationMethod.MinMax,
            )
        for photo in calibration:  # outside quiet(), which would swallow its progress
            # What onnxruntime calls a CalibrationDataReader: get_next() gives inputs, finally None.
            inputs = iter([{NORMALIZED: photo}])
            calibrator.collect_data(SimpleNamespace(get_next=partial(next, inputs, None)))
        self._ranges = calibrator.compute_data()

    @property
    def layers(self) -> list[str]:
        """Names of the nodes with weights, in order."""
        return [node.name for node in self._network.graph.node if node.op_type in _QUANTIZED_LAYERS]

    def quantize(
        self,
        float_layers: Collection[str] = (),
        *,
        only: Collection[str] = (),
        layers_only: bool = False,
    ) -> onnx.ModelProto:
        """The network in int8, except for ``float_layers``.

        only         these nodes alone in int8
        layers_only  layers alone, so that what is between them (sums, gates, normalizations) stays
                     in float
        """
        parts = partial(self._quantize, float_layers, only, layers_only)
        quantized = parts({})
        if not only and (scales := exact_scales(quantized, self._input_values)):
            quantized = parts(scales)
        clear_negligible_weights(quantized.graph)
        pad_channels(quantized.graph)
        return quantized

    def _quantize(
        self,
        float_layers: Collection[str],
        only: Collection[str],
        layers_only: bool,
        scales: Mapping[str, list[dict[str, Any]]],
    ) -> onnx.ModelProto:
        """``quantize``; ``scales``: of some tensors, instead of those that calibration gives."""
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import QuantType

        copy = deepcopy(self._network)
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
                op_types_to_quantize=list(_QUANTIZED_LAYERS) if layers_only else _op_types(),
                # Logits stay float: in 256 steps, classes close to each other would tie.
                extra_options={
                    "OpTypesToExcludeOutputQuantization": ["Gemm"],
                    "TensorQuantOverrides": {
                        **{name: [_EIGHT_BITS] for name in _depthwise_weights(copy.graph)},
                        **scales,
                    },
                },
            )
            quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
        return quantized

    def rank_layers(
        self, samples: Iterable[NDArray[np.float32]], progress: Progress = no_progress
    ) -> list[str]:
        """``layers``, those first whose quantization alone changes the samples' logits most."""
        inputs = list(samples)
        expected = run_network(self._network, inputs)
        errors = {}
        for layer in track(self.layers, len(self.layers), "Trying each layer in int8", progress):
            logits = run_network(self.quantize(only=[layer]), inputs)
            errors[layer] = float(np.square(logits - expected).mean())
        return sorted(errors, key=lambda layer: errors[layer], reverse=True)


def _depthwise_weights(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the weights of convolutions with one input channel per output channel."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        groups = int_attribute(node, "group", 1)
        is_grouped = node.op_type == "Conv" and groups > 1
        if is_grouped and shapes.get(node.input[1], ())[:2] == (groups, 1):
            yield node.input[1]


def _op_types() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})
