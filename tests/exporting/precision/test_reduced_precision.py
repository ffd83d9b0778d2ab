"""Reduced precisions: what they may lose, and what happens when they would lose more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.tiny_network import CROPPED, tiny_card, tiny_network
from torch import Tensor, nn

from edgetl import Predictor
from edgetl.errors import ExportError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.formats.onnx_model import opset_of
from edgetl.exporting.formats.onnx_network import export_network
from edgetl.exporting.precision.accuracy import AccuracyEvaluator, run_network
from edgetl.exporting.precision.normalized_photos import NormalizedPhotos
from edgetl.exporting.precision.quantize import Quantizer
from edgetl.exporting.precision.reduced_precision import (
    PrecisionSettings,
    convert_to_fp16,
    convert_to_int8,
)
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.runtime.bundle.embedded_checksum import verify_checksum
from edgetl.runtime.inference.self_test import selftest
from edgetl.runtime.inference.session import open_session
from edgetl.system.progress import track


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return export_network(tiny_network(), CROPPED, 13)


@pytest.fixture(scope="module")
def photos(photo_folder: Path) -> NormalizedPhotos:
    return NormalizedPhotos(sorted(photo_folder.iterdir()), CROPPED)


@pytest.fixture(scope="module")
def settings(
    photo_folder: Path, network: onnx.ModelProto, photos: NormalizedPhotos
) -> PrecisionSettings:
    """Photos labelled with the float network's answers, so that any other answer is a loss."""
    labels = run_network(network, photos).argmax(axis=1)
    paths = sorted(photo_folder.iterdir())
    return PrecisionSettings(
        paths, list(zip(paths, labels.tolist(), strict=True)), max_accuracy_drop=0.0
    )


def weights(model: onnx.ModelProto) -> list[np.ndarray]:
    """The int8 weights of the convolutions and the head."""
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [array for array in arrays if array.dtype == np.int8 and array.ndim >= 2]


def test_int8_weights_use_seven_bits_and_one_scale_per_channel(
    network: onnx.ModelProto, photos: NormalizedPhotos
) -> None:
    quantized = Quantizer(network, photos).quantize()
    arrays = weights(quantized)
    assert len(arrays) == 3
    assert all(np.abs(array.astype(int)).max() <= 64 for array in arrays)
    scales = {tensor.name: list(tensor.dims) for tensor in quantized.graph.initializer}
    names = [
        t.name.removesuffix("_quantized") for t in quantized.graph.initializer if len(t.dims) >= 2
    ]
    assert [scales[f"{name}_scale"] for name in names] == [[8], [8], [3]]


class DepthwiseNetwork(nn.Module):
    """All weights of a channel are equal, so that sums are as large as they can be."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.dense = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.head = nn.Linear(16, 3, bias=False)

    def forward(self, normalized: Tensor) -> Tensor:
        features = torch.relu(
            self.dense(torch.relu(self.depthwise(torch.relu(self.stem(normalized)))))
        )
        return self.head(features.mean(dim=[2, 3]))


@pytest.fixture(scope="module")
def full_range() -> onnx.ModelProto:
    torch.manual_seed(0)
    module = DepthwiseNetwork()
    with torch.no_grad():
        for layer in (module.depthwise, module.dense):
            layer.weight.fill_(0.5)
    return export_network(module.eval(), CROPPED, 13)


def test_what_a_callback_prints_while_photos_are_calibrated_is_seen(
    network: onnx.ModelProto, photos: NormalizedPhotos, capsys: pytest.CaptureFixture[str]
) -> None:
    some = list(photos)[:3]
    Quantizer(network, track(some, 3, "Calibrating", lambda *step: print(*step)))
    assert capsys.readouterr().out.splitlines()[-1] == "Calibrating 3 3"


def test_depthwise_weights_use_eight_bits_and_others_seven(
    full_range: onnx.ModelProto, photos: NormalizedPhotos
) -> None:
    largest = {
        array.shape: int(np.abs(array.astype(int)).max())
        for array in weights(Quantizer(full_range, photos).quantize())
    }
    assert largest[16, 1, 3, 3] == 127
    assert largest[16, 16, 3, 3] == 64


def test_integer_kernels_do_not_saturate(
    full_range: onnx.ModelProto, photos: NormalizedPhotos
) -> None:
    white = [np.full((1, 3, *CROPPED.crop), 2.5, np.float32)]
    model = Quantizer(full_range, [*photos, *white]).quantize().SerializeToString()
    integers, floats = (
        open_session(model, providers="cpu", optimize=optimize) for optimize in (True, False)
    )
    for photo in [*white, *photos]:
        # Each operator by itself, on numbers that were rounded.
        exact = floats.run(None, {"normalized": photo})[0]
        tolerance = 0.02 * float(np.abs(exact).max())
        logits = integers.run(None, {"normalized": photo})[0]
        assert logits == pytest.approx(exact, abs=tolerance)


def test_int8_answers_are_near_the_float_ones(
    network: onnx.ModelProto, photos: NormalizedPhotos
) -> None:
    expected = run_network(network, photos)
    got = run_network(Quantizer(network, photos).quantize(), photos)
    assert 0 < np.abs(got - expected).max() < 0.1 * np.ptp(expected)


def test_layers_named_stay_in_float(network: onnx.ModelProto, photos: NormalizedPhotos) -> None:
    quantizer = Quantizer(network, photos)
    assert len(weights(quantizer.quantize(float_layers=quantizer.layers[:1]))) == 2
    assert len(weights(quantizer.quantize(only=quantizer.layers[:1]))) == 1


def test_the_worst_layer_is_the_one_whose_rounding_hurts_most(
    network: onnx.ModelProto, photos: NormalizedPhotos
) -> None:
    quantizer = Quantizer(network, photos)
    ranking = quantizer.rank_layers(photos)
    assert sorted(ranking) == sorted(quantizer.layers)
    expected = run_network(network, photos)
    errors = [
        np.square(run_network(quantizer.quantize(only=[layer]), photos) - expected).mean()
        for layer in ranking
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[-1]


def test_what_is_between_the_layers_can_stay_in_float(
    network: onnx.ModelProto, photos: NormalizedPhotos
) -> None:
    def operators(model: onnx.ModelProto) -> set[str]:
        return {node.op_type for node in model.graph.node}

    quantizer = Quantizer(network, photos)
    assert "Relu" not in operators(quantizer.quantize())  # rounding to 0..255 does its work
    layers_only = quantizer.quantize(layers_only=True)
    assert "Relu" in operators(layers_only)
    assert len(weights(layers_only)) == 3


@pytest.mark.parametrize("wrong_tries", [1, 2, 3])
def test_parts_go_back_to_float_until_the_accuracy_holds(
    network: onnx.ModelProto,
    settings: PrecisionSettings,
    monkeypatch: pytest.MonkeyPatch,
    wrong_tries: int,
) -> None:
    quantize = Quantizer.quantize
    tries = []

    def sometimes_wrong(self: Quantizer, *layers: Sequence[str], **options: Any) -> onnx.ModelProto:
        if "only" in options:
            return quantize(self, *layers, **options)
        tries.append((layers, options))
        return wrong if len(tries) <= wrong_tries else quantize(self, *layers, **options)

    wrong = export_network(tiny_network(seed=3), CROPPED, 13)
    monkeypatch.setattr(Quantizer, "quantize", sometimes_wrong)
    quantized, compared = convert_to_int8(
        network, tiny_card(), replace(settings, max_accuracy_drop=15)
    )
    assert len(tries) == wrong_tries + 1
    assert len(compared.float_layers) == wrong_tries - 1
    assert len(weights(quantized)) == 3 - len(compared.float_layers)
    assert compared.drop <= 15


def test_a_model_that_loses_too_much_is_refused_with_figures(
    network: onnx.ModelProto, settings: PrecisionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = export_network(tiny_network(seed=3), CROPPED, 13)
    monkeypatch.setattr(Quantizer, "quantize", lambda *_, **__: wrong)
    monkeypatch.setattr(Quantizer, "rank_layers", lambda self, *_: self.layers)
    with pytest.raises(ExportError, match=r"loses .* points of accuracy on 8 validation photos"):
        convert_to_int8(network, tiny_card(), settings)


def test_an_export_reports_its_progress(
    settings: PrecisionSettings, network: onnx.ModelProto
) -> None:
    reported: list[tuple[str, int, int]] = []
    impossible = replace(settings, max_accuracy_drop=-1.0)
    with pytest.raises(ExportError):
        convert_to_int8(network, tiny_card(), impossible, lambda *report: reported.append(report))
    steps = list(dict.fromkeys(step for step, _, _ in reported))
    assert steps == [
        "Calibrating int8",
        "Measuring the accuracy of fp32",
        "Measuring the accuracy of int8",
        "Measuring the accuracy of int8 of the layers alone",
        "Trying each layer in int8",
        "Measuring the accuracy of int8, 1 of 3 layers in float",
        "Measuring the accuracy of int8, 2 of 3 layers in float",
    ]
    for step in steps:
        total = 3 if step.startswith("Trying") else len(settings.validation)
        expected = {(step, done, total) for done in range(total + 1)}
        assert {report for report in reported if report[0] == step} == expected


def test_fp16_must_keep_the_accuracy_too(
    network: onnx.ModelProto, settings: PrecisionSettings
) -> None:
    half, compared = convert_to_fp16(network, tiny_card(), settings)
    assert compared.drop == 0
    assert sum(t.data_type == onnx.TensorProto.FLOAT16 for t in half.graph.initializer) >= 6
    impossible = PrecisionSettings([], settings.validation, max_accuracy_drop=-1.0)
    with pytest.raises(ExportError, match="fp16"):
        convert_to_fp16(network, tiny_card(), impossible)


def test_accuracy_is_compared_by_class(network: onnx.ModelProto, photo_folder: Path) -> None:
    paths = sorted(photo_folder.iterdir())
    evaluator = AccuracyEvaluator(
        network, tiny_card(), [(path, number % 2) for number, path in enumerate(paths)]
    )
    same = evaluator.evaluate(network, "the same")
    assert same.agreement == 1
    assert same.drop == 0
    assert list(same.class_drops) == list(tiny_card().labels[:2])  # the third has no photo
    other = evaluator.evaluate(export_network(tiny_network(seed=3), CROPPED, 13), "other")
    assert other.agreement < 1
    assert other.drop == pytest.approx(100 * (other.fp32_accuracy - other.accuracy))
    assert np.mean(list(other.class_drops.values())) == pytest.approx(other.drop)


def test_no_photos_are_an_error(
    network: onnx.ModelProto, settings: PrecisionSettings, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="validation photos"):
        convert_to_fp16(network, tiny_card(), PrecisionSettings([], [], 1.0))
    with pytest.raises(ExportError, match="training photos"):
        convert_to_int8(network, tiny_card(), PrecisionSettings([], settings.validation, 1.0))
    with pytest.raises(ExportError, match="measure the int8 model's accuracy on"):
        export_bundle(
            Deployment(tiny_network(), tiny_card()), tmp_path / "b", golden=[], precisions=["int8"]
        )


def test_an_opset_that_int8_does_not_know_is_not_raised_silently(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="int8 needs opset 13 or later"):
        export_bundle(
            Deployment(tiny_network(), tiny_card()),
            tmp_path / "b",
            golden=[],
            opset=12,
            precisions=["fp32", "int8"],
        )
    assert not (tmp_path / "b").exists()


def test_one_bundle_holds_several_precisions(
    settings: PrecisionSettings, tmp_path: Path, photo_folder: Path
) -> None:
    allowing = PrecisionSettings(settings.calibration, settings.validation, max_accuracy_drop=50)
    golden = sorted(photo_folder.iterdir())[:2]
    bundle = export_bundle(
        Deployment(tiny_network(), tiny_card()),
        tmp_path / "b",
        golden=golden,
        precisions=("fp32", "fp16", "int8"),
        precision_settings=allowing,
    ).folder
    opened = Bundle.open(bundle)
    assert opened.manifest["models"] == {
        "fp32": "model.onnx",
        "fp16": "model.fp16.onnx",
        "int8": "model.int8.onnx",
    }
    assert opened.damage() == []
    assert opened.manifest["precisions"]["int8"]["photos"] == 8
    assert opened.has_portable_bits("int8") and not opened.has_portable_bits("fp16")
    for precision, name in opened.manifest["models"].items():
        model = onnx.load(bundle / name)
        assert (
            opened.manifest["opset"][precision]
            == opset_of(model)
            == (13 if precision == "int8" else 12)
        )
        made = {output for node in model.graph.node for output in node.output}
        assert {"resized", "normalized", "logits", "probabilities"} <= made
        assert [value.name for value in model.graph.input] == ["images"]
        with (bundle / name).open("rb") as file:
            assert verify_checksum(bundle / name, file.read())
    for precision in ("fp16", "int8"):
        predictor = Predictor(bundle, precision=precision)
        assert selftest(predictor).passed


def test_the_layers_that_int8_harms_most_go_first(
    network: onnx.ModelProto, settings: PrecisionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer = Quantizer(network, NormalizedPhotos(settings.calibration, CROPPED))
    ranking = quantizer.rank_layers(NormalizedPhotos(settings.calibration, CROPPED))
    accepted = iter([False, False, False, True])
    evaluate = AccuracyEvaluator.evaluate

    def strict(self: AccuracyEvaluator, *arguments: Any) -> Any:
        return replace(evaluate(self, *arguments), drop=0.0 if next(accepted) else 99.0)

    monkeypatch.setattr(AccuracyEvaluator, "evaluate", strict)
    assert convert_to_int8(network, tiny_card(), settings)[1].float_layers == tuple(ranking[:2])


@pytest.mark.parametrize(
    ("agreements", "allowed", "floats"),
    [
        ([0.4, 0.96], 0.0, 0),  # the layers alone
        ([0.4, 0.5, 0.7, 0.6], 0.0, 1),  # the best of all
        ([0.8], 20.0, 0),  # where accuracy may be lost, labels may differ
    ],
)
def test_more_goes_back_to_float_while_many_labels_differ_though_the_accuracy_holds(
    network: onnx.ModelProto,
    settings: PrecisionSettings,
    monkeypatch: pytest.MonkeyPatch,
    agreements: list[float],
    allowed: float,
    floats: int,
) -> None:
    evaluate, given = AccuracyEvaluator.evaluate, iter(agreements)
    monkeypatch.setattr(
        AccuracyEvaluator,
        "evaluate",
        lambda *args: replace(evaluate(*args), drop=0.0, agreement=next(given)),
    )
    _, compared = convert_to_int8(
        network, tiny_card(), replace(settings, max_accuracy_drop=allowed)
    )
    assert compared.agreement == max(agreements) and len(compared.float_layers) == floats
    assert next(given, None) is None


def with_bias(network: onnx.ModelProto, values: Sequence[float]) -> onnx.ModelProto:
    """The same network with another bias of its head."""
    changed = onnx.ModelProto()
    changed.CopyFrom(network)
    head = next(node for node in reversed(changed.graph.node) if node.op_type == "Gemm")
    bias = next(tensor for tensor in changed.graph.initializer if tensor.name == head.input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array(values, np.float32), bias.name))
    return changed


def test_answers_that_are_not_finite_are_wrong(
    network: onnx.ModelProto, settings: PrecisionSettings
) -> None:
    broken = with_bias(network, [np.nan] * 3)
    evaluator = AccuracyEvaluator(network, tiny_card(), settings.validation)
    compared = evaluator.evaluate(broken, "broken")
    assert (compared.fp32_accuracy, compared.accuracy, compared.agreement) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("label", range(3))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_label_whose_logit_is_not_finite_is_wrong(
    network: onnx.ModelProto, settings: PrecisionSettings, label: int, value: float
) -> None:
    bias = [0.0, 0.0, 0.0]
    bias[label] = value  # the highest of all to argmax
    evaluator = AccuracyEvaluator(
        network, tiny_card(), [(path, label) for path, _ in settings.validation]
    )
    compared = evaluator.evaluate(with_bias(network, bias), "broken")
    assert (compared.accuracy, compared.agreement) == (0.0, 0.0)


def test_an_onnxruntime_too_old_to_quantize_is_named(
    network: onnx.ModelProto, photos: NormalizedPhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "1.17.3")
    with pytest.raises(ExportError, match=r"needs onnxruntime 1\.18 or newer; this is 1\.17\.3"):
        Quantizer(network, photos)
