"""Exported models with one mistake: the check must fail, and name the stage."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from helpers import tampering
from helpers.small_export import Check, Exported

from edgetl.exporting.formats.torchscript import build_torchscript
from edgetl.parity import check_photos
from edgetl.runtime.bundle.bundle_folder import METADATA_KEY, card_metadata

ONNX_TAMPERS = [
    (tampering.bilinear, "resized", "resized bilinear instead of bicubic"),
    (tampering.crop_moved, "resized", "crop starts +1 pixel down and +0 to the right"),
    (tampering.vertical_first, "resized", "vertical pass"),
    (tampering.bgr, "resized", "BGR"),
    (tampering.plain_resize, "resized", "without antialiasing"),
    (tampering.mean, "normalized", "mean [0.485, 0.456, 0.406] and std [0.25, 0.22, 0.3]"),
    (tampering.std, "normalized", "mean [0.5, 0.45, 0.4"),
    (tampering.weight, "logits", "weights or its operators"),
    (tampering.not_a_number, "logits", ""),
    (tampering.softmax_twice, "probabilities", "softmax was applied twice"),
]


def test_an_untouched_export_passes_everywhere(exported: Exported, run_check: Check) -> None:
    result = run_check(exported.subject())
    assert result.passed, result.failures
    ran = {run.name for run in result.runtimes if run.status == "passed"}
    assert ran >= {
        "torchscript",
        "torchscript-fresh",
        "onnxruntime-cpu",
        "onnxruntime-unoptimized",
        "batch",
        "predictor",
    }
    assert result.photos == 7
    for run in result.runtimes:
        if run.status == "passed":
            resized, answers = run.stage("resized"), run.stage("probabilities")
            assert resized is not None and resized.differing == 0
            assert answers is not None and answers.size == 7 * 4 and answers.worst.largest < 1e-5


@pytest.mark.parametrize(
    ("tamper", "stage", "cause"), ONNX_TAMPERS, ids=lambda value: getattr(value, "__name__", value)
)
@pytest.mark.parametrize("runtime", ["onnxruntime-cpu", "onnxruntime-unoptimized"])
def test_the_tampered_stage_is_named(
    copied: Exported,
    run_check: Check,
    tamper: tampering.Tamper,
    stage: str,
    cause: str,
    runtime: str,
) -> None:
    tampering.tamper_with_onnx(copied.folder, copied.card.spec, tamper)
    result = run_check(copied.subject(), runtime)
    assert not result.passed
    assert [(run.status, run.departure) for run in result.runtimes] == [("failed", stage)], (
        result.failures
    )
    assert result.runtimes[0].reason.startswith(stage) and ".png" in result.runtimes[0].reason
    assert cause in result.runtimes[0].cause and bool(cause) == bool(result.runtimes[0].cause)
    assert [finding.name for finding in result.findings if not finding.passed] == []


@pytest.mark.parametrize("at_a_time", [1, check_photos.CHUNK_PIXELS])
def test_outputs_that_depend_on_batch_composition(
    copied: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    """Also with photos so large that they are read one by one."""
    monkeypatch.setattr(check_photos, "CHUNK_PIXELS", at_a_time)
    tampering.tamper_with_onnx(copied.folder, copied.card.spec, tampering.mixed)
    result = run_check(copied.subject(), "onnxruntime-cpu", "batch")
    assert {run.name: run.departure for run in result.runtimes} == {
        "onnxruntime-cpu": None,
        "batch": "logits",
    }


@pytest.mark.parametrize(
    ("runtime", "change", "stage"),
    [
        ("torchscript", {"interpolation": "bilinear"}, "resized"),
        ("torchscript", {"size": (41, 48)}, "resized"),
        ("torchscript", {"mean": (0.485, 0.456, 0.406)}, "normalized"),
        ("torchscript", {"std": (0.25, 0.22, 0.301)}, "normalized"),
        # Starts a process with torch, and computes the stages with the same function.
        ("torchscript-fresh", {"interpolation": "bilinear"}, "resized"),
        ("torchscript-fresh", {"mean": (0.485, 0.456, 0.406)}, "normalized"),
    ],
)
def test_different_preprocessing_in_the_torchscript_file(
    copied: Exported, run_check: Check, runtime: str, change: dict[str, object], stage: str
) -> None:
    other = replace(copied.card, spec=replace(copied.card.spec, **change))
    (copied.folder / "model.ts.pt").write_bytes(build_torchscript(copied.network, other))
    tampering.sign(copied.folder)
    result = run_check(copied.subject(), runtime)
    assert [(run.status, run.departure) for run in result.runtimes] == [("failed", stage)]


def test_a_different_temperature_shows_at_the_probabilities(
    copied: Exported, run_check: Check
) -> None:
    other = replace(copied.card, temperature=1.3)
    (copied.folder / "model.ts.pt").write_bytes(build_torchscript(copied.network, other))
    tampering.sign(copied.folder)
    result = run_check(copied.subject(), "torchscript")
    assert [(run.departure, run.cause) for run in result.runtimes] == [
        ("probabilities", "the temperature is 1.3 instead of 1.4")
    ]


@pytest.mark.parametrize("in_manifest", [True, False])
def test_swapped_labels_fail_though_the_numbers_agree(
    copied: Exported, run_check: Check, in_manifest: bool
) -> None:
    first, second, *others = copied.card.labels
    _describe_otherwise(copied, replace(copied.card, labels=(second, first, *others)), in_manifest)
    result = run_check(copied.subject(), "onnxruntime-cpu")
    assert not result.passed
    assert [name for name, _ in result.failures] == ["labels"]
    assert "'dog', in the checkpoint 'cat'" in result.failures[0][1]


@pytest.mark.parametrize("in_manifest", [True, False])
def test_another_temperature_in_a_description_is_named_with_its_files(
    copied: Exported, run_check: Check, in_manifest: bool
) -> None:
    _describe_otherwise(copied, replace(copied.card, temperature=1.3), in_manifest)
    result = run_check(copied.subject(), "onnxruntime-cpu")
    files = ("manifest.json", "model.onnx") if in_manifest else ("model.onnx",)
    assert result.failures == [
        (
            "temperature",
            "; ".join(f"{file}: temperature 1.3, in the checkpoint 1.4" for file in files),
        )
    ]


def test_another_spec_in_the_description_misleads_the_predictor(
    copied: Exported, run_check: Check
) -> None:
    other = replace(copied.card, spec=replace(copied.card.spec, interpolation="bilinear"))
    _describe_otherwise(copied, other, in_manifest=True)
    result = run_check(copied.subject(), "onnxruntime-cpu", "predictor")
    assert [name for name, _ in result.failures] == ["spec", "predictor"]
    by_name = {run.name: run.departure for run in result.runtimes}
    assert by_name == {"onnxruntime-cpu": None, "predictor": "resized"}


def test_a_damaged_file_is_reported_and_the_stages_compared_anyway(
    copied: Exported, run_check: Check
) -> None:
    file = copied.folder / "model.onnx"
    model = onnx.load(file)
    tampering.mean(model, copied.card.spec)
    onnx.save(model, file)  # without a new checksum
    result = run_check(copied.subject(), "onnxruntime-cpu", "predictor")
    assert [name for name, _ in result.failures] == ["files", "onnxruntime-cpu", "predictor"]
    assert "model.onnx" in result.failures[0][1]
    assert {run.name: run.departure for run in result.runtimes} == {
        "onnxruntime-cpu": "normalized",
        "predictor": None,
    }
    assert "SHA-256" in result.failures[2][1]


def test_a_damaged_lone_model_is_reported_and_the_stages_compared_anyway(
    copied: Exported, run_check: Check
) -> None:
    lone = copied.folder / "model.onnx"
    model = onnx.load(lone)
    tampering.mean(model, copied.card.spec)
    onnx.save(model, lone)
    result = run_check(copied.subject(lone), "onnxruntime-cpu", "predictor")
    assert [name for name, _ in result.failures] == ["files", "onnxruntime-cpu", "predictor"]
    assert "it is damaged" in result.failures[0][1]
    assert {run.name: run.departure for run in result.runtimes} == {
        "onnxruntime-cpu": "normalized",
        "predictor": None,
    }


def _describe_otherwise(copied: Exported, card: object, in_manifest: bool) -> None:
    """Put ``card`` into model.onnx, and into the manifest or not."""
    model = onnx.load(copied.folder / "model.onnx")
    entry = next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = card_metadata(card)
    onnx.save(model, copied.folder / "model.onnx")
    tampering.sign(copied.folder, **({"card": card.to_dict()} if in_manifest else {}))
