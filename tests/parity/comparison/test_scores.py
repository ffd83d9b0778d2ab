"""The score in every runtime, and detectors with one mistake: the check names the stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_backbone import SMALL_BACKBONE
from helpers.small_export import LABELS, SPEC, Check
from helpers.tiny_network import tiny_detector

from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import deployment_of
from edgetl.parity.comparison.runtime_tally import RuntimeTally
from edgetl.parity.reports.html_report import as_html
from edgetl.parity.reports.junit_report import as_junit
from edgetl.parity.runtimes import Subject
from edgetl.parity.stages import Stages
from edgetl.parity.tolerances import Tolerance
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.unknown_limits import UnknownLimits
from edgetl.training.models import backbones
from edgetl.training.models.checkpoint import Trained

RUNTIMES = ("onnxruntime-cpu", "torchscript")


@pytest.fixture(scope="module")
def trained() -> Trained:
    torch.manual_seed(3)
    backbone = backbones.build(SMALL_BACKBONE, len(LABELS), weights="none")
    width = backbone.module.get_submodule(backbone.head).in_features
    rng = np.random.default_rng(0)
    held_out = HeldOut(
        np.zeros(30, np.int32),
        np.zeros((30, 4), np.float32),
        np.zeros((30, 16), np.float16),
        rng.normal(size=30).astype(np.float32),
    )
    card = ModelCard(LABELS, SPEC, SMALL_BACKBONE, temperature=1.4)
    ood = tiny_detector(width, 16, 5)
    return Trained(backbone.module.eval(), card, head=backbone.head, ood=ood, held_out=held_out)


def export(trained: Trained, folder: Path, **options: object) -> Path:
    return export_bundle(
        replace(deployment_of(trained), held_out=None), folder, golden=(), **options
    ).folder


def test_every_runtime_gives_the_networks_score(
    trained: Trained, tmp_path: Path, run_check: Check
) -> None:
    bundle = export(trained, tmp_path / "b", formats=("onnx", "torchscript", "pt2"))
    result = run_check(Subject.of_run(bundle, trained))
    assert result.passed, result.failures
    ran = [run for run in result.runtimes if run.status == "passed"]
    assert {run.name for run in ran} >= {
        *RUNTIMES,
        "predictor",
        "batch",
        "pt2",
        "torchscript-fresh",
    }
    for run in ran:
        for stage in ("embedding", "ood_score"):
            found = run.stage(stage)
            assert found is not None
            assert found.worst.largest < 1e-3
    assert "ood_score" in as_html(result)
    assert as_junit(result).count('name="ood_score"') == len(ran)


@pytest.mark.parametrize(
    ("field", "by", "stage"),
    [
        ("mean", 0.01, "embedding"),
        ("projection", 0.01, "embedding"),
        ("centres", 0.05, "ood_score"),
        ("distance_mean", 0.05, "ood_score"),
        ("entropy_std", 0.05, "ood_score"),
    ],
)
def test_a_changed_detector_is_named(
    trained: Trained, tmp_path: Path, run_check: Check, field: str, by: float, stage: str
) -> None:
    assert trained.ood is not None
    wrong = replace(trained.ood, **{field: getattr(trained.ood, field) + by})
    bundle = export(replace(trained, ood=wrong), tmp_path / "b")
    result = run_check(Subject.of_run(bundle, trained), *RUNTIMES)
    for run in result.runtimes:
        assert (run.status, run.departure) == ("failed", stage)
        assert run.cause


def test_a_changed_threshold_is_found(trained: Trained, tmp_path: Path, run_check: Check) -> None:
    scores = trained.held_out.ood_score + np.float32(1)
    moved = replace(trained, held_out=replace(trained.held_out, ood_score=scores))
    bundle = export(moved, tmp_path / "b", formats=("onnx",))
    result = run_check(Subject.of_run(bundle, trained), "onnxruntime-cpu")
    assert dict(result.failures)["unknown"].startswith("manifest.json: threshold ")


@pytest.mark.parametrize(("expected", "tie"), [(0.999, True), (0.5, False)])
def test_a_photo_that_only_one_calls_unknown_is_a_flip_or_a_tie(expected: float, tie: bool) -> None:
    tolerance, limits = Tolerance(1e-4, 1.0, 20.0), UnknownLimits(1.0, 0.95, 20.0)
    tally = RuntimeTally("one", LABELS, tolerance, 1, unknown=limits)
    answers = np.array([0.7, 0.1, 0.1, 0.1])
    stages = [
        Stages(logits=answers, probabilities=answers, ood_score=np.array(score))
        for score in (expected, 1.001)
    ]
    tally.add("a.png", *stages)
    result = tally.result(0.0)
    (flip,) = result.decisions.flips
    assert (flip.expected, flip.found, flip.tie) == ("known", "unknown", tie)
    assert result.status == ("passed" if tie else "failed")
