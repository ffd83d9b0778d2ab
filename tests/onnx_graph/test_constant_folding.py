"""What depends only on the input's size is computed once, at the export."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from helpers.tiny_network import FREE
from timm.layers import Conv2dSame
from torch import Tensor, nn

from edgetl.exporting.formats.onnx_network import export_network
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.inference.session import open_session

FIXED = PreprocessSpec("squash", (21, 30), "bilinear", None, (0.5,) * 3, (0.5,) * 3)


class SamePadding(nn.Module):
    """Computes its padding from each input's size, and a reshape from the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2dSame(3, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(x.shape[0], 4, -1).mean(dim=2) / x.shape[0]


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def run(model: onnx.ModelProto, normalized: np.ndarray) -> np.ndarray:
    session = open_session(model.SerializeToString(), providers="cpu", threads=1)
    return session.run(["logits"], {"normalized": normalized})[0]


def test_a_fixed_size_leaves_only_what_depends_on_the_batch() -> None:
    network = SamePadding().eval()
    model = export_network(network, FIXED)
    free = export_network(network, FREE)
    assert len(model.graph.node) < len(free.graph.node) / 2
    onnx.checker.check_model(model, full_check=True)
    for photos in (1, 3, 4):
        normalized = (
            np.random.default_rng(photos).normal(size=(photos, 3, 21, 30)).astype(np.float32)
        )
        with torch.no_grad():
            expected = network(torch.from_numpy(normalized)).numpy()
        np.testing.assert_allclose(run(model, normalized), expected, rtol=1e-5, atol=1e-6)


def test_a_free_size_stays_free() -> None:
    network = SamePadding().eval()
    model = export_network(network, FREE)
    normalized = np.random.default_rng(0).normal(size=(2, 3, 27, 27)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(normalized)).numpy()
    np.testing.assert_allclose(run(model, normalized), expected, rtol=1e-5, atol=1e-6)
    assert "Shape" in operators(model)


def test_weights_are_neither_lost_nor_doubled() -> None:
    network = SamePadding().eval()
    arrays = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in export_network(network, FIXED).graph.initializer
    ]
    assert sum(array.shape == (4, 3, 3, 3) for array in arrays) == 1
