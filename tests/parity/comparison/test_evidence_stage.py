"""Evidence in every ONNX runtime and in the self-test, and maps that have another weight."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.pooled_network import PooledNetwork
from helpers.small_export import Check
from helpers.tampering import tamper_with_onnx
from helpers.tiny_network import CROPPED, tiny_card
from onnx import numpy_helper

from edgetl import Predictor
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.formats.mapped_network import require_maps
from edgetl.parity.reports.html_report import as_html
from edgetl.parity.runtimes import Subject
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.models.checkpoint import Trained


@pytest.fixture(scope="module")
def trained() -> Trained:
    torch.manual_seed(3)
    return Trained(PooledNetwork().eval(), tiny_card(), head="head")


@pytest.fixture(scope="module")
def mapped(trained: Trained, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with maps and golden photos."""
    return export_bundle(
        Deployment(trained.network, trained.card, maps=require_maps(trained)),
        tmp_path_factory.mktemp("mapped") / "b",
        golden=sorted(photos.rglob("*.png"))[:2],
    ).folder


def another_weight(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    """One weight of those that only the evidence has."""
    (node,) = (node for node in model.graph.node if "evidence" in node.output)
    (tensor,) = (value for value in model.graph.initializer if value.name == node.input[1])
    values = numpy_helper.to_array(tensor).copy()
    values.flat[7] += 0.05
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def test_every_onnx_runtime_gives_the_networks_evidence(
    mapped: Path, trained: Trained, run_check: Check
) -> None:
    result = run_check(Subject.of_run(mapped, trained))
    assert result.passed, result.failures
    shown = {run.name for run in result.runtimes if run.stage("evidence")}
    assert shown >= {"onnxruntime-cpu", "onnxruntime-unoptimized", "batch", "predictor"}
    assert not any("torchscript" in name for name in shown)
    for run in result.runtimes:
        if found := run.stage("evidence"):
            assert found.worst.largest < 1e-5
    assert "evidence" in as_html(result)


def test_another_weight_fails_the_check_and_the_self_test(
    mapped: Path, trained: Trained, tmp_path: Path, run_check: Check
) -> None:
    assert Predictor(mapped).selftest().passed
    bundle = shutil.copytree(mapped, tmp_path / "b")
    tamper_with_onnx(bundle, CROPPED, another_weight)
    result = run_check(Subject.of_run(bundle, trained), "onnxruntime-cpu", "predictor")
    for run in result.runtimes:
        assert (run.status, run.departure) == ("failed", "evidence")
        assert run.cause.startswith("the logits agree")
    outcome = Predictor(bundle).selftest()
    assert [found.stage for found in outcome.results] == ["evidence"] * 2
    assert "sums of evidence by up to" in outcome.results[0].detail


def test_the_maps_of_another_network_are_found(
    mapped: Path, trained: Trained, run_check: Check
) -> None:
    other = replace(Subject.of_run(mapped, trained), reference=trained.card)
    assert dict(run_check(other, "onnxruntime-cpu").failures)["biases"] == (
        "manifest.json: only one of checkpoint and export has maps; "
        "model.onnx: only one of checkpoint and export has maps"
    )


def test_the_sums_of_the_evidence_and_the_biases_are_the_logits(mapped: Path, photos: Path) -> None:
    predictor = Predictor(mapped)
    for photo in sorted(photos.rglob("*.png"))[:3]:
        prediction = predictor.explain(photo)
        assert prediction.evidence is not None and predictor.card.biases is not None
        sums = prediction.evidence.astype(np.float64).sum((1, 2)) + predictor.card.biases
        np.testing.assert_allclose(sums, prediction.logits, atol=1e-5)
