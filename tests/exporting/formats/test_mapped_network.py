"""``evidence`` in the exported graph: its sums are the logits, beside the other outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.pooled_network import PooledNetwork
from helpers.tiny_network import (
    CROPPED,
    LABELS,
    scored_card,
    tiny_card,
    tiny_detector,
    tiny_network,
)

from edgetl.errors import ExportError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.formats.mapped_network import MappedNetwork, require_maps
from edgetl.exporting.formats.onnx_model import assemble
from edgetl.exporting.formats.onnx_network import export_network
from edgetl.exporting.golden_photos import GoldenReference
from edgetl.exporting.verification import open_onnx, verify_evidence_sums
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.training.models.checkpoint import Trained
from edgetl.training.models.evidence import FeatureMaps, find_maps
from edgetl.training.models.tapped_network import Tap, TappedNetwork

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def network() -> PooledNetwork:
    torch.manual_seed(0)
    return PooledNetwork().eval()


@pytest.fixture(scope="module")
def maps(network: PooledNetwork) -> FeatureMaps:
    found = find_maps(network, (), CROPPED.crop)
    assert found is not None
    return found


@pytest.mark.parametrize("scored", [False, True])
def test_the_sums_of_the_evidence_are_the_logits(network, maps, scored):
    source = TappedNetwork(network, {"features": Tap("head")}) if scored else network
    card, detector = (scored_card(), tiny_detector()) if scored else (tiny_card(), None)
    exported = export_network(MappedNetwork(source, maps), CROPPED)
    outputs = open_onnx(assemble(exported, card, detector))(IMAGES)
    assert ("ood_score" in outputs) == scored
    bias = network.head.bias.detach().numpy()
    sums = outputs["evidence"].astype(np.float64).sum((2, 3)) + bias
    np.testing.assert_allclose(sums, outputs["logits"], atol=1e-5)


def test_a_bundle_with_other_evidence_is_not_written(network, maps, tmp_path, monkeypatch):
    def doubled(source, *rest):
        model = export_network(source, *rest)
        (node,) = (node for node in model.graph.node if "evidence" in node.output)
        (weight,) = (value for value in model.graph.initializer if value.name == node.input[1])
        weight.raw_data = (2 * np.frombuffer(weight.raw_data, np.float32)).tobytes()
        return model

    monkeypatch.setattr("edgetl.exporting.bundle_writer.export_network", doubled)
    with pytest.raises(ExportError, match="its evidence differs by"):
        export_bundle(
            Deployment(network, tiny_card(), maps=maps), tmp_path / "b", golden=[], formats=["onnx"]
        )
    assert not (tmp_path / "b").exists()


def test_a_bundle_with_evidence_has_the_later_schema(network, maps, tmp_path):
    export_bundle(
        Deployment(network, tiny_card(), maps=maps), tmp_path / "b", golden=[], formats=["onnx"]
    )
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest["schema"] == 2
    assert bundle.card.biases == tuple(network.head.bias.tolist())


def test_a_reduced_model_whose_maps_would_fail_on_the_device_is_refused():
    ones = np.ones(len(LABELS), np.float32)
    photo = GoldenReference("a photo", IMAGES[0], IMAGES[0], ones, ones)
    card = replace(tiny_card(), biases=(0.0,) * len(LABELS))
    outputs = {
        "logits": ones[None],
        "evidence": np.full((1, len(LABELS), 2, 2), 0.25),
    }
    verify_evidence_sums("int8", outputs, card, photo)
    with pytest.raises(ExportError, match="The sums of the int8 model's evidence are off") as error:
        verify_evidence_sums("int8", {**outputs, "logits": 2 * outputs["logits"]}, card, photo)
    assert "Leave out --maps, or int8" in str(error.value.hint)


def test_a_network_without_maps_is_refused():
    with pytest.raises(ExportError, match="tiny has no evidence maps") as caught:
        require_maps(Trained(tiny_network(), tiny_card()))
    assert "Leave out --maps" in str(caught.value.hint)
