"""Residual sums in int8: none is a tie, which machines would round differently."""

from __future__ import annotations

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
from edgetl.exporting.precision.normalized_photos import NormalizedPhotos
from edgetl.exporting.precision.quantize import Quantizer
from edgetl.exporting.precision.sum_scales import UNITS


class ResidualNetwork(nn.Module):
    """A chain of sums, and one term that goes into two of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = early = self.first(x)
        for layer in self.layers:
            x = x + layer(torch.relu(x))
        logits: Tensor = self.head((x + early).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def photos(photo_folder: Path) -> NormalizedPhotos:
    return NormalizedPhotos(sorted(photo_folder.iterdir()), CROPPED)


@pytest.fixture(scope="module")
def quantizer(photos: NormalizedPhotos) -> Quantizer:
    return Quantizer(export_network(ResidualNetwork().eval(), CROPPED, 13), photos)


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


def test_the_scales_of_sums_are_odd_numbers_of_units(
    quantizer: Quantizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = units(quantizer.quantize())
    assert np.abs(found - np.round(found)).max() < 1e-3
    assert (np.round(found) % 2 == 1).all()
    monkeypatch.setattr(quantize, "tie_free_scales", lambda graph: {})
    before = units(quantizer.quantize())
    assert np.abs(before - np.round(before)).max() > 0.1
    assert (found > before - 1e-3).all()
    assert (found < before + 2 + 1e-3).all()


def test_the_answers_are_as_close_to_the_float_network_as_before(
    quantizer: Quantizer, photos: NormalizedPhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_network(export_network(ResidualNetwork().eval(), CROPPED, 13), photos)
    found = run_network(quantizer.quantize(), photos)
    monkeypatch.setattr(quantize, "tie_free_scales", lambda graph: {})
    before = run_network(quantizer.quantize(), photos)
    spread = np.ptp(expected)
    assert np.abs(found - expected).max() < np.abs(before - expected).max() + 0.02 * spread


def test_a_network_without_sums_is_quantized_once(
    photos: NormalizedPhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    plain = Quantizer(export_network(network.eval(), CROPPED, 13), photos)
    with_scales = plain.quantize().SerializeToString(deterministic=True)
    monkeypatch.setattr(quantize, "tie_free_scales", lambda graph: {})
    assert plain.quantize().SerializeToString(deterministic=True) == with_scales
