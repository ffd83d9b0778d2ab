"""Which networks torch's exporter writes, and how long it tries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_network import FREE
from torch import Tensor, nn

from edgetl.errors import ExportError
from edgetl.export import onnx_network
from edgetl.export.onnx_network import MAX_OPSET, MIN_OPSET, export_network
from edgetl.runtime.session import open_session


class WithSwitches(nn.Module):
    """As timm's newer transformers: ``forward`` takes more than pixels, and dropout follows the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.drop = nn.Dropout(0.9)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        assert causal is False, "a tensor is no switch"
        return self.drop(self.linear(x.mean((2, 3))))


def test_what_forward_has_defaults_for_is_no_input() -> None:
    network = WithSwitches().eval()
    model = export_network(network, FREE)
    assert [value.name for value in model.graph.input] == ["normalized"]
    pixels = torch.randn(2, 3, 9, 8)
    session = open_session(model.SerializeToString(), providers="cpu", threads=1)
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(None, {"normalized": pixels.numpy()})[0], network(pixels).numpy(), rtol=1e-5, atol=1e-6
        )
    assert not network.training and not network.drop.training


@pytest.mark.parametrize(
    ("lowest", "tried"), [(12, [12]), (15, [12, 20, 13, 14, 15]), (20, [12, 20, *range(13, 20)]), (99, [12, 20])]
)
def test_the_lowest_opset_is_found_and_what_none_can_write_is_told_soon(monkeypatch, lowest, tried) -> None:
    asked: list[int] = []

    def traced(network, spec, opset):
        asked.append(opset)
        if opset < lowest:
            raise RuntimeError("no such operator")
        return opset

    monkeypatch.setattr(onnx_network, "_traced", traced)
    if lowest <= MAX_OPSET:
        assert export_network(WithSwitches(), FREE) == max(lowest, MIN_OPSET)
    else:
        with pytest.raises(ExportError, match="no such operator") as caught:
            export_network(WithSwitches(), FREE)
        assert "--format torchscript" in caught.value.hint
    assert asked == tried
