"""int8 without ties: no result of a quantized network lies where processors round differently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.tiny_network import CROPPED
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgetl.exporting.formats.onnx_network import export_network
from edgetl.exporting.precision import quantize
from edgetl.exporting.precision.accuracy import run_network
from edgetl.exporting.precision.exact_scales import UNITS
from edgetl.exporting.precision.normalized_photos import NormalizedPhotos
from edgetl.exporting.precision.portable_bits import input_values, why_not_portable
from edgetl.exporting.precision.quantize import Quantizer
from edgetl.exporting.precision.quantized_steps import QuantizedSteps, Scale, Scales, Step


class ResidualNetwork(nn.Module):
    """A chain of sums after a pool of maxima, one term of which goes into two of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = early = self.pool(torch.relu(self.first(x)))
        for layer in self.layers:
            x = x + layer(torch.relu(x))
        logits: Tensor = self.head((x + early).mean((2, 3)))
        return logits


class GatedNetwork(nn.Module):
    """What efficient networks have besides: gates, functions, and features side by side."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Conv2d(16, 16, 1)
        self.last = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.first(x))
        x = x * torch.sigmoid(self.gate(self.average(x)))
        y = nn.functional.silu(self.last(x))
        features = torch.cat([self.average(x), self.average(y)], 1)
        logits: Tensor = self.head(features.flatten(1))
        return logits


@pytest.fixture(scope="module")
def photos(photo_folder: Path) -> NormalizedPhotos:
    return NormalizedPhotos(sorted(photo_folder.iterdir()), CROPPED)


def quantizer_of(network: nn.Module, photos: NormalizedPhotos) -> Quantizer:
    return Quantizer(export_network(network.eval(), CROPPED, 13), photos, input_values(CROPPED))


@pytest.fixture(scope="module")
def quantizer(photos: NormalizedPhotos) -> Quantizer:
    return quantizer_of(ResidualNetwork(), photos)


@pytest.fixture(scope="module")
def gated(photos: NormalizedPhotos) -> Quantizer:
    return quantizer_of(GatedNetwork(), photos)


def units(model: onnx.ModelProto) -> NDArray[np.float64]:
    """The scales of all sums' terms and results, in units of the largest one divided by UNITS."""
    constants = {
        tensor.name: numpy_helper.to_array(tensor).item()
        for tensor in model.graph.initializer
        if not tensor.dims
    }
    scales = {
        name: constants[node.input[1]]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in constants
        for name in (node.input[0], node.output[0])
    }
    sums = [node for node in model.graph.node if node.op_type == "Add"]
    assert len(sums) == 5
    found = np.array([scales[name] for node in sums for name in (*node.input, *node.output)])
    return found / found.max() * UNITS


@pytest.fixture
def as_calibrated(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Switches the choice of scales off."""
    return lambda: monkeypatch.setattr(quantize, "exact_scales", lambda *_: {})


def test_the_scales_of_sums_are_odd_numbers_of_units(
    quantizer: Quantizer, as_calibrated: Callable[[], None]
) -> None:
    found = units(quantizer.quantize())
    assert np.abs(found - np.round(found)).max() < 1e-3
    assert (np.round(found) % 2 == 1).all()
    as_calibrated()
    before = units(quantizer.quantize())
    assert np.abs(before - np.round(before)).max() > 0.1
    assert (found > before - 1e-3).all()
    assert (found < before + 2 + 1e-3).all()


@pytest.mark.parametrize("network", [ResidualNetwork, GatedNetwork])
def test_no_result_is_near_a_tie(
    network: type[nn.Module], photos: NormalizedPhotos, as_calibrated: Callable[[], None]
) -> None:
    quantizer = quantizer_of(network(), photos)
    assert why_not_portable(quantizer.quantize(), CROPPED) == ""
    as_calibrated()
    assert "near a tie" in why_not_portable(quantizer.quantize(), CROPPED)


@pytest.mark.parametrize("network", [ResidualNetwork, GatedNetwork])
def test_the_answers_are_as_close_to_the_float_network_as_before(
    network: type[nn.Module], photos: NormalizedPhotos, as_calibrated: Callable[[], None]
) -> None:
    quantizer = quantizer_of(network(), photos)
    expected = run_network(export_network(network().eval(), CROPPED, 13), photos)
    found = run_network(quantizer.quantize(), photos)
    as_calibrated()
    before = run_network(quantizer.quantize(), photos)
    spread = np.ptp(expected)
    assert np.abs(found - expected).max() < np.abs(before - expected).max() + 0.02 * spread


def integers(results: NDArray[np.float64], scale: Scale, away_from_zero: bool) -> NDArray[np.int64]:
    """Rounded as on x86, or as on ARM."""
    values = results / scale.size
    rounded = np.round(values)
    if away_from_zero:
        rounded = np.sign(values) * np.floor(np.abs(values) + 0.5)
    return np.clip(rounded + scale.zero_point, 0, 255).astype(np.int64)


def test_an_average_that_is_a_tie_is_found_and_mended() -> None:
    """Of 4 places and with the same scale before and after, every other sum would be a tie."""
    from edgetl.exporting.precision import exact_scales, quantized_steps

    step = quantized_steps._average("mean", "mean", "before", 4)
    scales = {"before": Scale(0.5, 0), "mean": Scale(0.5, 0)}

    def differing() -> int:
        assert step.results is not None
        results, scale = step.results(scales)[0], scales["mean"]
        return int((integers(results, scale, True) != integers(results, scale, False)).sum())

    assert not step.is_exact(scales) and differing() > 100
    exact_scales._adjust(step, {"mean"}, scales)
    assert step.is_exact(scales) and differing() == 0
    assert 0.5 < scales["mean"].size < 0.502


def test_a_step_that_no_scale_mends_keeps_its_scale() -> None:
    from edgetl.exporting.precision import exact_scales

    def always_a_tie(scales: Scales) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array([2.5 * scales["x"].size]), np.array([0.0])

    scales = {"x": Scale(0.25, 3)}
    exact_scales._adjust(Step("x", "x", always_a_tie), {"x"}, scales)
    assert scales == {"x": Scale(0.25, 3)}


class Averaged(nn.Module):
    """``pool`` between two convolutions."""

    def __init__(self, pool: nn.Module, outputs: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.pool = nn.Conv2d(3, 4, 3), pool
        self.last = nn.Sequential(nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = outputs or nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.last(self.pool(self.first(x))))
        return logits


@pytest.mark.parametrize(
    ("pool", "outputs", "reason"),
    [
        (nn.AvgPool2d(2), None, "AveragePool in float"),
        (nn.InstanceNorm2d(4), None, "InstanceNormalization in float"),
        (nn.Identity(), nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "Relu gives the logits"),
    ],
)
def test_operators_that_are_not_known_to_be_exact_are_named(
    pool: nn.Module, outputs: nn.Module | None, reason: str, photos: NormalizedPhotos
) -> None:
    quantized = quantizer_of(Averaged(pool, outputs), photos).quantize()
    assert reason in why_not_portable(quantized, CROPPED)


def test_layers_in_float_are_named(quantizer: Quantizer) -> None:
    layers = quantizer.layers
    assert "in float" in why_not_portable(quantizer.quantize(layers[:1]), CROPPED)
    assert "in float" in why_not_portable(quantizer.quantize(layers[-1:]), CROPPED)


def test_weights_that_would_saturate_are_named(quantizer: Quantizer) -> None:
    model = quantizer.quantize()
    tensor = next(
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    )
    values = numpy_helper.to_array(tensor).copy()
    values[0] = 65
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert why_not_portable(model, CROPPED).startswith("weights of 8 bits")


def test_an_input_of_unknown_values_is_not_vouched_for(quantizer: Quantizer) -> None:
    steps = QuantizedSteps(quantizer.quantize(), None)
    assert [step.result for step in steps.steps if not step.is_exact(steps.scales)] == [
        "normalized"
    ]


def test_a_dead_channel_cannot_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bias is next to the lowest integer, and its weights would add to that."""
    rng = np.random.default_rng(0)
    photos = [rng.normal(size=(1, 3, *CROPPED.crop)).astype(np.float32) for _ in range(4)]
    network = ResidualNetwork()
    with torch.no_grad():
        network.layers[0].weight[2] = -1e-5
        network.layers[0].bias[2] = -4.0
    expected = run_network(export_network(network.eval(), CROPPED, 13), photos)
    quantizer = Quantizer(
        export_network(network.eval(), CROPPED, 13), photos, input_values(CROPPED)
    )
    quantized = quantizer.quantize()
    assert why_not_portable(quantized, CROPPED) == ""
    assert np.abs(run_network(quantized, photos) - expected).max() < 0.02 * np.ptp(expected)
    monkeypatch.setattr(quantize, "clear_negligible_weights", lambda graph: None)
    overflowing = quantizer.quantize()
    assert why_not_portable(overflowing, CROPPED) == "sums that don't fit into 32 bits"
    assert np.abs(run_network(overflowing, photos) - expected).max() > 0.2 * np.ptp(expected)


def test_scales_are_the_calibrated_ones_where_all_is_exact(
    photos: NormalizedPhotos, as_calibrated: Callable[[], None]
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten())
    network.append(nn.Linear(840, 3))
    plain = quantizer_of(network, photos)
    with_scales = plain.quantize()
    as_calibrated()
    before, after = (
        QuantizedSteps(model, None).scales for model in (plain.quantize(), with_scales)
    )
    assert {k: v for k, v in before.items() if k != "normalized"} == {
        k: v for k, v in after.items() if k != "normalized"
    }
