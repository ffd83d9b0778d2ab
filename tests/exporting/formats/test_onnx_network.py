"""Which networks can be exported, and in which opsets it is tried."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny_network import CROPPED, FREE, tiny_card
from torch import Tensor, nn

from edgetl.errors import ExportError
from edgetl.exporting.formats import onnx_network
from edgetl.exporting.formats.onnx_model import assemble, opset_of
from edgetl.exporting.formats.onnx_network import (
    MAX_OPSET,
    MIN_OPSET,
    RECORDED_OPSET,
    export_network,
)
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.inference.session import open_session


class OptionalInputs(nn.Module):
    """Like timm's newer transformers: ``forward`` takes more than pixels, and has dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.drop = nn.Dropout(0.9)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        assert causal is False, "a tensor is not a switch"
        return self.drop(self.linear(x.mean((2, 3))))


def test_optional_arguments_of_forward_are_not_inputs() -> None:
    network = OptionalInputs().eval()
    model = export_network(network, FREE)
    assert [value.name for value in model.graph.input] == ["normalized"]
    pixels = torch.randn(2, 3, 9, 8)
    session = open_session(model.SerializeToString(), providers="cpu", threads=1)
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(None, {"normalized": pixels.numpy()})[0],
            network(pixels).numpy(),
            rtol=1e-5,
            atol=1e-6,
        )
    assert not network.training and not network.drop.training


@pytest.mark.parametrize(
    ("lowest", "tried"),
    [
        (12, [12]),
        (15, [12, 20, 13, 14, 15]),
        (20, [12, 20, *range(13, 20)]),
        (99, [12, 20, RECORDED_OPSET]),
    ],
)
def test_the_lowest_opset_is_found_and_a_network_that_none_can_express_fails_early(
    monkeypatch, lowest, tried
) -> None:
    asked: list[int] = []

    def fake_export(network, spec, opset):
        asked.append(opset)
        if opset < lowest:
            raise RuntimeError("no such operator")
        return opset

    monkeypatch.setattr(onnx_network, "trace_network", fake_export)
    monkeypatch.setattr(onnx_network, "record_network", fake_export)
    if lowest <= MAX_OPSET:
        assert export_network(OptionalInputs(), FREE) == max(lowest, MIN_OPSET)
    else:
        with pytest.raises(ExportError, match="no such operator") as caught:
            export_network(OptionalInputs(), FREE)
        assert "--format torchscript" in caught.value.hint
    assert asked == tried


class Uneven(nn.Module):
    """Pools to areas of different sizes, which torch's tracing exporter can't write.

    pixels  how many of each side it uses
    """

    def __init__(self, pixels: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pixels = pixels
        self.conv = nn.Conv2d(3, 4, 3, stride=3)  # else the pool takes 100 nodes
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.head = nn.Linear(4 * 3 * 3, 3)

    def forward(self, normalized: Tensor) -> Tensor:
        used = normalized[:, :, : self.pixels, : self.pixels]
        return self.head(self.pool(torch.relu(self.conv(used))).flatten(1))


@pytest.mark.parametrize(
    ("spec", "pixels"), [(CROPPED, None), (FREE, 12)], ids=["fixed size", "any size"]
)
def test_a_network_that_cannot_be_traced_is_recorded(
    spec: PreprocessSpec, pixels: int | None
) -> None:
    network = Uneven(pixels).eval()
    model = export_network(network, spec)
    assert opset_of(model) == RECORDED_OPSET
    whole = assemble(model, tiny_card(spec)).SerializeToString()
    assert b".py" not in whole and b"torch" not in whole.replace(b'{"torch": "2"}', b""), (
        "a path of this machine"
    )
    session = open_session(model.SerializeToString(), providers="cpu", threads=1)
    height, width = spec.fixed_size or (24, 31)
    for photos in (1, 2, 5):
        images = torch.randn(photos, 3, height, width)
        with torch.no_grad():
            expected = network(images).numpy()
        np.testing.assert_allclose(
            session.run(None, {"normalized": images.numpy()})[0], expected, rtol=1e-5, atol=1e-6
        )


class Pairs(Uneven):
    """Its answers depend on pairs of photos."""

    def forward(self, normalized: Tensor) -> Tensor:
        pairs = self.pool(torch.relu(self.conv(normalized))).flatten(1).unflatten(0, (-1, 2))
        return self.head((pairs - pairs.mean(1, keepdim=True)).flatten(0, 1))


def test_a_network_that_holds_for_some_batch_sizes_only_is_refused() -> None:
    with pytest.raises(ExportError, match="can't be written as ONNX"):
        export_network(Pairs(None).eval(), CROPPED)


class Conditional(Uneven):
    """Has subgraphs in its graph."""

    def forward(self, normalized: Tensor) -> Tensor:
        features = self.pool(torch.relu(self.conv(normalized))).flatten(1)
        return self.head(
            torch.cond(
                features.sum() > 0, lambda x: torch.sin(x) * 2, lambda x: torch.cos(x), (features,)
            )
        )


def test_no_path_of_this_machine_is_in_a_subgraph() -> None:
    model = export_network(Conditional(None).eval(), CROPPED)
    assert any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute)
    assert b".py" not in assemble(model, tiny_card(CROPPED)).SerializeToString()


class FixedBatch(nn.Module):
    """Its trace holds for one batch size only; its recording holds for all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, normalized: Tensor) -> Tensor:
        return self.head(
            torch.relu(self.conv(normalized)).mean((2, 3)).view(int(normalized.shape[0]), -1)
        )


def test_a_network_whose_trace_holds_for_one_batch_size_is_recorded() -> None:
    model = export_network(FixedBatch().eval(), CROPPED)
    session = open_session(model.SerializeToString(), providers="cpu", threads=1)
    assert opset_of(model) == RECORDED_OPSET
    assert session.run(None, {"normalized": np.zeros((5, 3, *CROPPED.fixed_size), np.float32)})[
        0
    ].shape == (5, 3)


def test_no_other_opset_is_used_than_the_one_asked_for() -> None:
    with pytest.raises(
        ExportError, match=r"can't be written as ONNX: .*adaptive_avg_pool2d"
    ) as caught:
        export_network(Uneven(None).eval(), CROPPED, opset=13)
    assert "without --opset" in caught.value.hint
    assert opset_of(export_network(Uneven(None).eval(), CROPPED, opset=19)) == 19
