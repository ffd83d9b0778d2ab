"""``embedding`` and ``ood_score`` in every format: the formula, in float64, is the reference."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
import torch
from helpers.tiny_network import (
    CROPPED,
    FREE,
    scored_card,
    tapped_network,
    tiny_detector,
    tiny_network,
)

from edgetl.exporting.formats.onnx_model import assemble
from edgetl.exporting.formats.onnx_network import export_network, record_network
from edgetl.exporting.formats.onnx_ood_score import write_ood_score
from edgetl.exporting.formats.torch_ood_score import OODScore
from edgetl.exporting.formats.torch_program import branch_free_classifier, build_program
from edgetl.exporting.formats.torchscript import build_torchscript
from edgetl.exporting.verification import open_onnx, open_program, open_torchscript
from edgetl.onnx_graph.graph_writer import GraphWriter
from edgetl.onnx_graph.tracing import quiet
from edgetl.runtime.images.resize import normalize
from edgetl.runtime.inference.session import open_session
from edgetl.training.models.ood_detector import OODDetector
from edgetl.training.models.tapped_network import Tap, TappedNetwork

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)


def formula(
    detector: OODDetector, features: np.ndarray, logits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(scores, embeddings) one photo at a time, in float64, as OODDetector's docstring has it."""
    scores, embeddings = [], []
    for x, z in zip(features.astype(float), logits.astype(float), strict=True):
        u = x / np.sqrt(x @ x) - detector.mean
        embedding = u @ detector.projection
        distance = u @ u + min(c @ c - 2 * embedding @ c for c in detector.centres.astype(float))
        q = np.exp(z / 2) / np.exp(z / 2).sum()
        entropy = -(q * np.log(q)).sum()
        scores.append(
            (distance - detector.distance_mean) / detector.distance_std
            + (entropy - detector.entropy_mean) / detector.entropy_std
        )
        embeddings.append(embedding)
    return np.array(scores), np.array(embeddings)


def onnx_scores(
    detector: OODDetector, features: np.ndarray, logits: np.ndarray, opset: int
) -> list[np.ndarray]:
    """The detector's nodes alone, in onnxruntime."""
    graph = GraphWriter("test")
    write_ood_score(graph, detector, opset)

    def values(**ranks: int) -> list[onnx.ValueInfoProto]:
        return [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * rank)
            for name, rank in ranks.items()
        ]

    whole = onnx.helper.make_graph(
        graph.nodes,
        "score",
        values(features=2, logits=2),
        values(ood_score=1, embedding=2),
        list(graph.initializers.values()),
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(whole, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = open_session(model.SerializeToString(), providers="cpu")
    return session.run(["ood_score", "embedding"], {"features": features, "logits": logits})


@pytest.mark.parametrize("opset", [12, 13, 18, 20])
def test_the_graph_and_the_module_compute_the_formula(opset: int) -> None:
    detector, rng = tiny_detector(64, 16, 9), np.random.default_rng(2)
    features = rng.gamma(1, 2, (5, 64)).astype(np.float32)
    logits = rng.normal(0, 8, (5, 7)).astype(np.float32)
    expected = formula(detector, features, logits)
    module = OODScore(detector)(torch.from_numpy(features), torch.from_numpy(logits))
    for found in (onnx_scores(detector, features, logits, opset), module):
        for values, exact in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(values), exact, atol=1e-4)


def test_features_of_zeros_and_logits_far_apart_have_a_finite_score() -> None:
    features = np.zeros((2, 8), np.float32)
    logits = np.array([[0, 0, 0], [1e4, -1e4, 0]], np.float32)
    for opset in (12, 18):
        for values in onnx_scores(tiny_detector(), features, logits, opset):
            assert np.isfinite(values).all()


@pytest.mark.parametrize("spec", [CROPPED, FREE])
def test_every_format_gives_the_networks_score_alone_and_in_a_batch(spec) -> None:
    network, card, detector = tapped_network(), scored_card(spec), tiny_detector()
    models = [
        open_onnx(assemble(export_network(network, spec), card, detector)),
        open_torchscript(build_torchscript(network, card, detector)),
    ]
    if spec.fixed_size:
        program = branch_free_classifier(network, card, detector)
        models.append(open_program(build_program(program), program))
    for model in models:
        together = model(IMAGES)
        assert together["ood_score"].shape == (3,)
        assert together["embedding"].shape == (3, 4)
        with torch.inference_mode():
            logits, features = network(torch.from_numpy(normalize(together["resized"], spec)))
        scores, embeddings = formula(detector, features.numpy(), logits.numpy())
        np.testing.assert_allclose(together["ood_score"], scores, atol=1e-4)
        np.testing.assert_allclose(together["embedding"], embeddings, atol=1e-5)
        for index in range(3):
            alone = model(IMAGES[index : index + 1])
            for name in ("ood_score", "embedding"):
                np.testing.assert_allclose(alone[name][0], together[name][index], atol=1e-4)


def test_a_recorded_network_has_the_taps_too() -> None:
    network = tapped_network()
    with quiet(), torch.no_grad():
        model = record_network(network, CROPPED, 18)
    assert [value.name for value in model.graph.output] == ["logits", "features"]


def test_taps_are_what_a_module_takes_or_returns_and_leave_the_network_alone() -> None:
    network = tiny_network()
    tapped = TappedNetwork(network, {"maps": Tap("body", output=True), "features": Tap("head")})
    images = torch.rand(2, 3, 16, 16)
    logits, maps, features = tapped(images)
    assert maps.shape == (2, 8, 8, 8)
    torch.testing.assert_close(network.head(features), logits)
    torch.testing.assert_close(network(images), logits)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_forward_of_the_torchscript_file_returns_the_score_and_the_embedding_too() -> None:
    buffer = io.BytesIO(build_torchscript(tapped_network(), scored_card(), tiny_detector()))
    with quiet():
        module = torch.jit.load(buffer)
    assert len(module(torch.from_numpy(IMAGES))) == 4
