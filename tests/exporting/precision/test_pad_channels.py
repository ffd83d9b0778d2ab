"""More input channels for 8-bit convolutions: the same sums from a faster kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.tiny_network import CROPPED, tiny_network

from edgetl.exporting.formats.onnx_network import export_network
from edgetl.exporting.precision import quantize
from edgetl.exporting.precision.accuracy import run_network
from edgetl.exporting.precision.normalized_photos import NormalizedPhotos
from edgetl.exporting.precision.pad_channels import pad_channels
from edgetl.exporting.precision.quantize import Quantizer


@pytest.fixture(scope="module")
def photos(photo_folder: Path) -> NormalizedPhotos:
    return NormalizedPhotos(sorted(photo_folder.iterdir()), CROPPED)


@pytest.fixture(scope="module")
def quantizer(photos: NormalizedPhotos) -> Quantizer:
    return Quantizer(export_network(tiny_network(), CROPPED, 13), photos)


def input_channels(model: onnx.ModelProto) -> list[int]:
    return [tensor.dims[1] for tensor in model.graph.initializer if len(tensor.dims) == 4]


def test_the_first_layer_gets_a_fourth_channel_and_gives_the_same_answers(
    quantizer: Quantizer, photos: NormalizedPhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = quantizer.quantize()
    monkeypatch.setattr(quantize, "pad_channels", lambda graph: None)
    plain = quantizer.quantize()
    assert (input_channels(padded), input_channels(plain)) == ([4, 8], [3, 8])
    onnx.checker.check_model(padded, full_check=True)
    assert np.array_equal(run_network(padded, photos), run_network(plain, photos))


def test_no_unused_node_remains(quantizer: Quantizer) -> None:
    graph = quantizer.quantize().graph
    used = {name for node in graph.node for name in node.input} | {
        value.name for value in graph.output
    }
    assert {name for node in graph.node for name in node.output} <= used


def test_a_first_layer_in_float_stays_as_it_is(quantizer: Quantizer) -> None:
    model = quantizer.quantize(quantizer.layers[:1])
    assert input_channels(model) == [3, 8]
    assert all(node.op_type != "Pad" for node in model.graph.node)


def test_weights_that_two_layers_share_stay_as_they_are(
    quantizer: Quantizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "pad_channels", lambda graph: None)
    model = quantizer.quantize()
    stem = next(node for node in model.graph.node if node.op_type == "Conv")
    twin = onnx.NodeProto()
    twin.CopyFrom(stem)
    twin.name, twin.output[0] = "twin", "twin"
    model.graph.node.append(twin)
    pad_channels(model.graph)
    assert input_channels(model) == [3, 8]


def test_layers_without_names_are_padded(
    quantizer: Quantizer, photos: NormalizedPhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "pad_channels", lambda graph: None)
    model = quantizer.quantize()
    expected = run_network(model, photos)
    for node in model.graph.node:
        node.name = ""
    pad_channels(model.graph)
    assert input_channels(model) == [4, 8]
    assert np.array_equal(run_network(model, photos), expected)
