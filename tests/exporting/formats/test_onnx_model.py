"""The ONNX file: its names, types, description and answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.tiny_network import CROPPED, FREE, LABELS, tiny_card, tiny_network
from torch import nn

from edgetl import Predictor
from edgetl.errors import ExportError
from edgetl.exporting.formats import onnx_network
from edgetl.exporting.formats.deployed_classifier import DeployedClassifier
from edgetl.exporting.formats.onnx_model import assemble, opset_of
from edgetl.exporting.formats.onnx_network import export_network
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.inference.protobuf_edits import apply_edits, edits_to_start_at_resized
from edgetl.runtime.inference.session import open_session
from edgetl.training.torch_env.vision_libraries import timm

STAGES = ["resized", "normalized", "logits", "probabilities"]


def build_onnx(network: nn.Module, card: ModelCard, opset: int | None = None) -> onnx.ModelProto:
    return assemble(export_network(network, card.spec, opset), card)


def answers(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    """The four stages of ``images``."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(value for value in model.graph.value_info if value.name in STAGES)
    session = open_session(shown.SerializeToString(), providers="cpu", threads=1)
    return session.run(STAGES, {"images": images})


def noise(photos: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (photos, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return build_onnx(tiny_network(), tiny_card())


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_inputs_and_outputs_have_the_promised_names_and_shapes(model: onnx.ModelProto) -> None:
    assert {v.name: shape(v) for v in model.graph.input} == {"images": ["N", "H", "W", 3]}
    assert {v.name: shape(v) for v in model.graph.output} == {
        "logits": ["N", 3],
        "probabilities": ["N", 3],
    }
    inner = {v.name: shape(v) for v in model.graph.value_info if v.name in STAGES}
    assert inner == {"resized": ["N", 31, 32, 3], "normalized": ["N", 3, 31, 32]}
    made = [name for node in model.graph.node for name in node.output]
    assert set(STAGES) <= set(made)


@pytest.mark.parametrize("spec", [CROPPED, FREE], ids=["fixed size", "any size"])
def test_the_predictor_can_load_the_network_alone(spec: PreprocessSpec, tmp_path: Path) -> None:
    whole = build_onnx(tiny_network(), tiny_card(spec))
    onnx.save(whole, tmp_path / "model.onnx")
    content = bytearray((tmp_path / "model.onnx").read_bytes())
    apply_edits(content, edits_to_start_at_resized(content) or {})
    part = onnx.load_model_from_string(bytes(content))
    onnx.checker.check_model(part, full_check=True)
    assert [value.name for value in part.graph.input] == ["resized"]
    assert "If" in {node.op_type for node in whole.graph.node} - {
        node.op_type for node in part.graph.node
    }
    prediction = Predictor(tmp_path / "model.onnx", threads=1)(noise(1, 90, 70)[0])
    np.testing.assert_allclose(prediction.logits, answers(whole, noise(1, 90, 70))[2][0], atol=1e-5)


def test_node_and_initializer_names_are_unique(model: onnx.ModelProto) -> None:
    def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
        inner = [
            node for n in graph.node for a in n.attribute if a.HasField("g") for node in nodes(a.g)
        ]
        return [*graph.node, *inner]

    names = [node.name for node in nodes(model.graph)] + [
        tensor.name for tensor in model.graph.initializer
    ]
    assert len(set(names)) == len(names)
    assert all(names)


def test_the_file_describes_itself(model: onnx.ModelProto) -> None:
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert ModelCard.from_dict(metadata["edgetl"]["card"]) == tiny_card()
    assert tuple(metadata["edgetl"]["card"]["labels"]) == LABELS


def test_the_lowest_opset_is_the_default_and_a_higher_one_is_used_on_request(
    model: onnx.ModelProto,
) -> None:
    assert opset_of(model) == 12
    assert model.ir_version == 7
    raised = build_onnx(tiny_network(), tiny_card(), opset=17)
    assert opset_of(raised) == 17
    images = noise(1, 40, 60)
    for low, high in zip(answers(model, images), answers(raised, images), strict=True):
        np.testing.assert_allclose(low, high, atol=1e-6)


@pytest.mark.parametrize("opset", [11, 21])
def test_an_opset_out_of_range_is_refused(opset: int) -> None:
    with pytest.raises(ExportError, match=f"Opset {opset}"):
        build_onnx(tiny_network(), tiny_card(), opset=opset)


@pytest.mark.parametrize("spec", [CROPPED, FREE], ids=["fixed size", "any size"])
@pytest.mark.parametrize("size", [(1, 1), (36, 36), (24, 24), (90, 70), (30, 101)])
def test_every_stage_equals_eager_torch(spec: PreprocessSpec, size: tuple[int, int]) -> None:
    network, card = tiny_network(), tiny_card(spec)
    images = noise(3, *size)
    with torch.inference_mode():
        expected = [
            value.numpy()
            for value in DeployedClassifier(network, card).stages(torch.from_numpy(images))
        ]
    got = answers(build_onnx(network, card), images)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_allclose(got[2], expected[2], atol=1e-4)
    np.testing.assert_allclose(got[3], expected[3], atol=1e-5)


def test_an_operator_that_needs_a_later_opset_gets_it(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=3).eval()
    card = tiny_card(PreprocessSpec("squash", (160, 160), "bilinear", None, (0.5,) * 3, (0.5,) * 3))
    model = build_onnx(network, card)
    assert opset_of(model) == 14
    assert capfd.readouterr() == ("", "")  # failed tries are not shown


def test_a_network_that_cannot_be_written_is_an_error_that_says_why() -> None:
    class Fourier(nn.Module):
        def forward(self, normalized: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft2(normalized).abs().mean(dim=[2, 3])

    with pytest.raises(ExportError, match="can't be written as ONNX") as caught:
        build_onnx(Fourier(), tiny_card(), opset=13)
    assert caught.value.hint


def test_weights_over_two_gigabytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_network, "MAX_BYTES", 1000)
    with pytest.raises(ExportError, match="2 GB"):
        build_onnx(tiny_network(), tiny_card())
