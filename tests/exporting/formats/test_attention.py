"""Networks with attention: in eval mode torch uses a fused kernel, which ONNX doesn't have."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgetl.exporting.formats.onnx_network import export_network
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.inference.session import open_session

SPEC = PreprocessSpec("squash", (4, 6), "bilinear", None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class AttentionNetwork(nn.Module):
    """Each pixel attends to the others."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Linear(3, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.widen(images.flatten(2).transpose(1, 2))
        mixed, _ = self.attention(pixels, pixels, pixels, need_weights=False)
        return self.head(mixed.mean(1))


def test_attention_is_exported_with_the_same_answers() -> None:
    torch.manual_seed(0)
    network = AttentionNetwork().eval()
    before = torch.backends.mha.get_fastpath_enabled()
    session = open_session(export_network(network, SPEC).SerializeToString(), providers="cpu")
    assert torch.backends.mha.get_fastpath_enabled() == before
    images = torch.randn(5, 3, 4, 6)
    with torch.inference_mode():
        expected = network(images).numpy()
    np.testing.assert_allclose(
        session.run(["logits"], {"normalized": images.numpy()})[0], expected, atol=1e-5
    )
