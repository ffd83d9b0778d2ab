"""Smaller models: what they may lose, and what happens when they would lose more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_network import CROPPED, tiny_card, tiny_network

from edgetl import Predictor
from edgetl.errors import ExportError
from edgetl.export.bundle_writer import export_bundle
from edgetl.export.judge import Judge, run_network
from edgetl.export.onnx_network import export_network
from edgetl.export.pictures import Pictures
from edgetl.export.precisions import JudgedBy, to_half, to_int8
from edgetl.export.quantize import Quantizer
from edgetl.runtime.bundle import Bundle
from edgetl.runtime.selftest import selftest


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return export_network(tiny_network(), CROPPED, 13)


@pytest.fixture(scope="module")
def pictures(photo_folder: Path) -> Pictures:
    return Pictures(sorted(photo_folder.iterdir()), CROPPED)


@pytest.fixture(scope="module")
def judged_by(photo_folder: Path, network: onnx.ModelProto, pictures: Pictures) -> JudgedBy:
    """Photos labelled with the float network's own answers, so that any change of mind is a loss."""
    labels = run_network(network, pictures).argmax(axis=1)
    paths = sorted(photo_folder.iterdir())
    return JudgedBy(paths, list(zip(paths, labels.tolist(), strict=True)), max_accuracy_drop=0.0)


def weights(model: onnx.ModelProto) -> list[np.ndarray]:
    """The int8 weights of the convolutions and the head."""
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [array for array in arrays if array.dtype == np.int8 and array.ndim >= 2]


def test_int8_weights_keep_to_seven_bits_with_a_scale_a_channel(network: onnx.ModelProto, pictures: Pictures) -> None:
    quantized = Quantizer(network, pictures).quantize()
    arrays = weights(quantized)
    assert len(arrays) == 3
    assert all(np.abs(array.astype(int)).max() <= 64 for array in arrays)
    scales = {tensor.name: list(tensor.dims) for tensor in quantized.graph.initializer}
    names = [t.name.removesuffix("_quantized") for t in quantized.graph.initializer if len(t.dims) >= 2]
    assert [scales[f"{name}_scale"] for name in names] == [[8], [8], [3]]


def test_int8_answers_are_near_the_float_ones(network: onnx.ModelProto, pictures: Pictures) -> None:
    expected = run_network(network, pictures)
    got = run_network(Quantizer(network, pictures).quantize(), pictures)
    assert 0 < np.abs(got - expected).max() < 0.1 * np.ptp(expected)


def test_layers_named_stay_in_float(network: onnx.ModelProto, pictures: Pictures) -> None:
    quantizer = Quantizer(network, pictures)
    assert len(weights(quantizer.quantize(float_layers=quantizer.layers[:1]))) == 2
    assert len(weights(quantizer.quantize(only=quantizer.layers[:1]))) == 1


def test_the_worst_layer_is_the_one_whose_rounding_hurts_most(network: onnx.ModelProto, pictures: Pictures) -> None:
    quantizer = Quantizer(network, pictures)
    ranking = quantizer.worst_layers(pictures)
    assert sorted(ranking) == sorted(quantizer.layers)
    expected = run_network(network, pictures)
    errors = [np.square(run_network(quantizer.quantize(only=[layer]), pictures) - expected).mean() for layer in ranking]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[-1]


def test_what_is_between_the_layers_can_stay_in_float(network: onnx.ModelProto, pictures: Pictures) -> None:
    def operators(model: onnx.ModelProto) -> set[str]:
        return {node.op_type for node in model.graph.node}

    quantizer = Quantizer(network, pictures)
    assert "Relu" not in operators(quantizer.quantize())  # rounding to 0..255 does its work
    layers_only = quantizer.quantize(layers_only=True)
    assert "Relu" in operators(layers_only)
    assert len(weights(layers_only)) == 3


@pytest.mark.parametrize("spoilt_tries", [1, 2])
def test_parts_go_back_to_float_until_the_accuracy_holds(
    network: onnx.ModelProto, judged_by: JudgedBy, monkeypatch: pytest.MonkeyPatch, spoilt_tries: int
) -> None:
    quantize = Quantizer.quantize
    tries = []

    def spoilt(self: Quantizer, *layers: Sequence[str], **options: Any) -> onnx.ModelProto:
        if "only" in options:
            return quantize(self, *layers, **options)
        tries.append((layers, options))
        return wrong if len(tries) <= spoilt_tries else quantize(self, *layers, **options)

    wrong = export_network(tiny_network(seed=3), CROPPED, 13)
    monkeypatch.setattr(Quantizer, "quantize", spoilt)
    quantized, judgement = to_int8(network, tiny_card(), replace(judged_by, max_accuracy_drop=15))
    assert len(tries) == spoilt_tries + 1
    assert len(judgement.float_layers) == spoilt_tries - 1
    assert len(weights(quantized)) == 3 - len(judgement.float_layers)
    assert judgement.drop <= 15


def test_a_model_that_loses_too_much_is_refused_with_figures(
    network: onnx.ModelProto, judged_by: JudgedBy, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = export_network(tiny_network(seed=3), CROPPED, 13)
    monkeypatch.setattr(Quantizer, "quantize", lambda *_, **__: wrong)
    monkeypatch.setattr(Quantizer, "worst_layers", lambda self, _: self.layers)
    with pytest.raises(ExportError, match=r"loses .* points of accuracy on 8 validation photos"):
        to_int8(network, tiny_card(), judged_by)


def test_fp16_is_judged_too(network: onnx.ModelProto, judged_by: JudgedBy) -> None:
    half, judgement = to_half(network, tiny_card(), judged_by)
    assert judgement.drop == 0
    assert sum(t.data_type == onnx.TensorProto.FLOAT16 for t in half.graph.initializer) >= 6
    impossible = JudgedBy([], judged_by.validation, max_accuracy_drop=-1.0)
    with pytest.raises(ExportError, match="fp16"):
        to_half(network, tiny_card(), impossible)


def test_judgement_counts_by_class(network: onnx.ModelProto, photo_folder: Path) -> None:
    paths = sorted(photo_folder.iterdir())
    judge = Judge(network, tiny_card(), [(path, number % 2) for number, path in enumerate(paths)])
    same = judge.judge(network)
    assert same.agreement == 1
    assert same.drop == 0
    assert list(same.class_drops) == list(tiny_card().labels[:2])  # the third has no photo
    other = judge.judge(export_network(tiny_network(seed=3), CROPPED, 13))
    assert other.agreement < 1
    assert other.drop == pytest.approx(100 * (other.fp32_accuracy - other.accuracy))
    assert np.mean(list(other.class_drops.values())) == pytest.approx(other.drop)


def test_nothing_to_judge_by_is_an_error(network: onnx.ModelProto, judged_by: JudgedBy, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="validation photos"):
        to_half(network, tiny_card(), JudgedBy([], [], 1.0))
    with pytest.raises(ExportError, match="training photos"):
        to_int8(network, tiny_card(), JudgedBy([], judged_by.validation, 1.0))
    with pytest.raises(ExportError, match="judge the int8 model by"):
        export_bundle(tiny_network(), tiny_card(), tmp_path / "b", golden=[], precisions=["int8"])


def test_one_bundle_holds_several_precisions(judged_by: JudgedBy, tmp_path: Path, photo_folder: Path) -> None:
    allowing = JudgedBy(judged_by.calibration, judged_by.validation, max_accuracy_drop=50)
    golden = sorted(photo_folder.iterdir())[:2]
    bundle = export_bundle(
        tiny_network(), tiny_card(), tmp_path / "b", golden=golden, precisions=("fp32", "fp16", "int8"), judged_by=allowing
    )
    opened = Bundle.open(bundle)
    assert opened.manifest["models"] == {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
    assert opened.damage() == []
    assert opened.manifest["precisions"]["int8"]["photos"] == 8
    for name in opened.manifest["models"].values():
        model = onnx.load(bundle / name)
        made = {output for node in model.graph.node for output in node.output}
        assert {"resized", "normalized", "logits", "probabilities"} <= made
        assert [value.name for value in model.graph.input] == ["images"]
    for precision in ("fp16", "int8"):
        predictor = Predictor(bundle, precision=precision)
        assert selftest(predictor).passed
