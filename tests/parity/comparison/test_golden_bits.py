"""int8 logits that are the same everywhere are compared with the bundle's own, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tampering
from helpers.small_export import Check
from helpers.tiny_network import tiny_card, tiny_network

from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.precision.reduced_precision import PrecisionSettings
from edgetl.parity.comparison.golden_bits import GoldenBits
from edgetl.parity.comparison.runtime_tally import RuntimeTally
from edgetl.parity.runtimes import Subject
from edgetl.parity.stages import LeftOut, Refusal
from edgetl.parity.tolerances import Tolerance
from edgetl.runtime.bundle.bundle_folder import MANIFEST, Bundle

RUNTIMES = ("onnxruntime-cpu", "onnxruntime-unoptimized", "batch", "predictor")


@pytest.fixture
def subject_of(photos: Path, tmp_path: Path) -> Callable[..., Subject]:
    """A function: what changes the golden int8 answers → the bundle's int8 model to check."""
    paths, network = sorted(photos.rglob("*.png")), tiny_network()
    bundle = export_bundle(
        Deployment(network, tiny_card()),
        tmp_path / "int8",
        golden=paths[:2],
        formats=["onnx"],
        precisions=["int8"],
        precision_settings=PrecisionSettings(paths, [(path, 0) for path in paths], 100.0),
    ).folder

    def subject(change: Callable[[dict[str, Any]], None], **changes: Any) -> Subject:
        golden = json.loads((bundle / MANIFEST).read_bytes())["golden"]
        for entry in golden:
            change(entry["own_answers"]["int8"])
        tampering.sign(bundle, golden=golden, **changes)
        return Subject.open(bundle, network, tiny_card(), precision="int8")

    return subject


def one_bit_off(answer: dict[str, Any]) -> None:
    answer["logits"][0] = float(np.nextafter(np.float32(answer["logits"][0]), np.float32(99)))


def test_a_bit_that_differs_from_the_golden_int8_logits_fails(
    subject_of: Callable[..., Subject], run_check: Check
) -> None:
    """But where operators are computed in float, since that is another computation."""
    subject = subject_of(lambda answer: None)
    assert Bundle.open(subject.path).has_portable_bits("int8")
    assert run_check(subject, *RUNTIMES).passed
    result = run_check(subject_of(one_bit_off), *RUNTIMES)
    assert {run.name: run.status for run in result.runtimes} == {
        name: "passed" if name == "onnxruntime-unoptimized" else "failed" for name in RUNTIMES
    }
    departures = {run.departure for run in result.runtimes if run.status == "failed"}
    assert departures == {"logits"}
    assert "from what this model gives elsewhere" in str(result.failures)
    old = subject_of(one_bit_off, precisions={})  # as bundles were before
    assert run_check(old, *RUNTIMES).passed


def test_a_golden_photo_that_is_refused_fails(subject_of: Callable[..., Subject]) -> None:
    golden = GoldenBits.of(subject_of(lambda answer: None))
    assert golden is not None
    tally = RuntimeTally("node", ["a", "b"], Tolerance(1e-4), 2)
    golden.compare([LeftOut(), Refusal("it is cut short")], tally)
    result = tally.result(1.0)
    assert result.status == "failed" and result.departure == "decoded"
    assert "refused (it is cut short)" in str(result.stages)
