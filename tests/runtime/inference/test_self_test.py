"""The self-test: an intact bundle passes, and a failure names the first stage that differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tampering, tiny_bundle
from PIL import Image

from edgetl import Predictor
from edgetl.errors import BundleError
from edgetl.runtime.bundle.bundle_folder import manifest_bytes
from edgetl.runtime.inference.self_test import selftest


def change_golden(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    for entry in manifest["golden"]:
        change(entry)
    (bundle / "manifest.json").write_bytes(manifest_bytes(manifest))


def test_an_intact_bundle_passes(tiny_bundle: Path) -> None:
    outcome = Predictor(tiny_bundle).selftest()
    assert outcome.passed
    assert outcome.stage is None
    assert [result.file for result in outcome.results] == [
        "golden/000.png",
        "golden/001.png",
        "golden/002.png",
    ]
    assert all(result.max_probability_difference < 1e-5 for result in outcome.results)
    assert outcome.tolerance == 1e-4


def test_a_different_decoder_fails_at_decode(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgetl.runtime.images.decode import read_image

    def brighter(source: Any, **options: Any) -> Image.Image:
        return read_image(source, **options).point(lambda value: min(value + 1, 255))

    monkeypatch.setattr("edgetl.runtime.inference.self_test.read_image", brighter)
    assert Predictor(tiny_bundle).selftest().stage == "decode"


def test_a_different_resize_fails_at_resized(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "edgetl.runtime.inference.self_test.resize_image",
        lambda image, spec: np.asarray(image.resize((8, 8), Image.Resampling.NEAREST)),
    )
    assert Predictor(tiny_bundle).selftest().stage == "resized"


@pytest.mark.parametrize("stage", ["logits", "probabilities"])
def test_different_outputs_fail_at_their_stage(bundle_copy: Path, stage: str) -> None:
    def shift(entry: dict[str, Any]) -> None:
        entry[stage][0] += 0.01

    change_golden(bundle_copy, shift)
    outcome = Predictor(bundle_copy).selftest()
    assert not outcome.passed
    assert {result.stage for result in outcome.results} == {stage}


def test_nan_outputs_fail(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(tiny_bundle)
    nothing = np.full((1, 5), np.nan, np.float32)
    outputs = {"logits": nothing, "probabilities": nothing}
    monkeypatch.setattr(predictor, "run_outputs", lambda images, **_: outputs)
    outcome = predictor.selftest()
    assert {result.stage for result in outcome.results} == {"logits"}
    json.dumps([result.max_probability_difference for result in outcome.results], allow_nan=False)


@pytest.mark.parametrize("name", ["golden/001.png", "model.onnx"])
def test_a_damaged_file_is_reported_once(bundle_copy: Path, name: str) -> None:
    predictor = Predictor(bundle_copy)
    content = bytearray((bundle_copy / name).read_bytes())
    content[50] ^= 1
    (bundle_copy / name).write_bytes(content)
    outcome = predictor.selftest()
    assert outcome.stage == "files"
    assert [result.file for result in outcome.results if result.stage == "files"] == [name]


def test_a_golden_photo_over_max_pixels_fails_at_decode(tiny_bundle: Path) -> None:
    assert Predictor(tiny_bundle, max_pixels=100).selftest().stage == "decode"


def test_the_tolerance_can_be_set(bundle_copy: Path) -> None:
    def shift(entry: dict[str, Any]) -> None:
        entry["probabilities"][0] += 0.01

    change_golden(bundle_copy, shift)
    assert selftest(Predictor(bundle_copy), tolerance=0.02).passed
    assert not selftest(Predictor(bundle_copy), tolerance=0.001).passed


def test_a_quantized_model_is_compared_with_its_own_answers(bundle_copy: Path) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    described = tiny_bundle.card()
    (bundle_copy / "model.int8.onnx").write_bytes(tiny_bundle.onnx_bytes(described, seed=1))
    files = {
        name: (bundle_copy / name).read_bytes() for name in [*manifest["files"], "model.int8.onnx"]
    }
    for entry in manifest["golden"]:
        with Image.open(bundle_copy / entry["file"]) as image:
            logits, probabilities = tiny_bundle.answer(np.asarray(image), described, seed=1)
        entry["own_answers"] = {
            "int8": {"logits": logits.tolist(), "probabilities": probabilities.tolist()}
        }
    models = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
    tiny_bundle.write_manifest(bundle_copy, described, files, manifest["golden"], models=models)
    for precision, tolerance in ((None, 1e-4), ("fp32", 1e-4), ("int8", 5e-2)):
        outcome = Predictor(bundle_copy, precision=precision).selftest()
        assert outcome.passed
        assert outcome.tolerance == tolerance


@pytest.mark.parametrize("portable", [True, False])
def test_where_every_cpu_gives_the_same_bits_none_may_differ(
    bundle_copy: Path, portable: bool
) -> None:
    predictor = Predictor(bundle_copy)

    def own(entry: dict[str, Any], shift: float = 0.0) -> None:
        prediction = predictor((bundle_copy / entry["file"]).read_bytes())
        logits = prediction.logits.tolist()
        logits[1] += shift
        answers = {"logits": logits, "probabilities": prediction.probabilities.tolist()}
        entry["own_answers"] = {"fp32": answers}

    tampering.sign(bundle_copy, precisions={"fp32": {"portable_bits": portable}})
    change_golden(bundle_copy, own)
    assert Predictor(bundle_copy).selftest().passed
    change_golden(bundle_copy, lambda entry: own(entry, shift=1e-6))
    shifted = Predictor(bundle_copy).selftest()
    assert shifted.stage == ("logits" if portable else None)
    assert ("not a bit is allowed" in shifted.results[0].detail) == portable
    assert Predictor(bundle_copy).selftest(tolerance=1e-4).passed


def test_a_bundle_without_golden_photos_is_an_error(bundle_copy: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.onnx"
    lone.write_bytes((bundle_copy / "model.onnx").read_bytes())
    with pytest.raises(BundleError, match="no golden photos to test with"):
        Predictor(lone).selftest()
    tiny_bundle.write_manifest(
        bundle_copy, tiny_bundle.card(), {"model.onnx": lone.read_bytes()}, []
    )
    with pytest.raises(BundleError, match="no golden photos to test with"):
        Predictor(bundle_copy).selftest()
