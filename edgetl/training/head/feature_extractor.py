"""A frozen backbone without its classifier layer, through the fastest runtime at hand: pixels → features."""

from __future__ import annotations

import copy
import io
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.errors import TrainingError, first_line
from edgetl.onnx_graph.tracing import plain_attention, quiet
from edgetl.runtime.images.resize import normalization
from edgetl.runtime.inference.session import import_onnxruntime, open_session
from edgetl.training.models.backbones import Backbone
from edgetl.training.torch_env.device_transfer import channels_last
from edgetl.training.torch_env.oom_retry import halve_on_oom
from edgetl.training.torch_env.torch_flags import full_precision, one_thread

_OPSET = 17
_AGREEMENT = 1e-3  # largest difference between the two runtimes, as a share of the largest feature
_GPU_BATCH = 64


class FeatureExtractor(Protocol):
    """Computes features.

    name        what runs it ("onnxruntime 1.32.0")
    note        why it is not the fastest runtime, or None
    batch       how many photos to give it at once
    concurrent  whether several threads may call it at the same time, each call using one core
    """

    name: str
    note: str | None
    batch: int
    concurrent: bool

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, h, w, 3], resized and cropped → float32 [N, features], the input of the classifier layer."""


class _Headless(nn.Module):
    """uint8 [N, h, w, 3] → normalized → the backbone up to the input of its classifier layer [N, features]."""

    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network = copy.deepcopy(backbone.module)
        self.network.set_submodule(backbone.head, nn.Identity())
        scale, bias = normalization(backbone.spec)
        self.register_buffer("scale", torch.from_numpy(scale)[:, None, None])
        self.register_buffer("bias", torch.from_numpy(bias)[:, None, None])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        planes = pixels.permute(
            0, 3, 1, 2
        )  # first: a quarter of the bytes, and the sums below run along rows
        features: torch.Tensor = self.network(planes.float() * self.scale + self.bias)
        return features


class _OnnxTrunk:
    """One photo a call, one core a call: faster than batches, whose activations fall out of the cores' caches."""

    batch = 1
    concurrent = True

    def __init__(self, network: _Headless, example: NDArray[np.uint8]) -> None:
        self.name = f"onnxruntime {import_onnxruntime().__version__}"
        self.note: str | None = None
        self._session = open_session(_to_onnx(network, example), providers="cpu", threads=1)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        (features,) = self._session.run(None, {"pixels": pixels})
        return np.asarray(features, np.float32)


class _TorchTrunk:
    """Eager torch in float32, channels-last."""

    concurrent = False

    def __init__(self, network: _Headless, device: torch.device) -> None:
        self.name = f"torch {torch.__version__}"
        self.note: str | None = None
        # On the CPU, others in a batch would move the last bits of a feature, and who they are depends on the cache.
        self.batch = 1 if device.type == "cpu" else _GPU_BATCH
        self._device = device
        self._network = channels_last(network, device)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), full_precision():
            features = halve_on_oom(
                lambda some: self._network(torch.from_numpy(some).to(self._device)), pixels
            )
        return np.asarray(features.cpu().numpy(), np.float32)


def open_feature_extractor(backbone: Backbone, device: torch.device) -> FeatureExtractor:
    """The backbone's frozen part on ``device``: onnxruntime on the CPU where that works, else torch.

    Raises TrainingError for a backbone whose logits are not a linear layer's output.
    """
    if not backbone.has_linear_head:
        raise TrainingError(
            f"The head of {backbone.name} is not one linear layer on a vector of features.",
            "Train it with --strategy last-blocks or full.",
        )
    network = _Headless(backbone).eval().requires_grad_(False)
    plain = _TorchTrunk(network, device)
    with one_thread():
        probe = _probe(backbone)
        expected = plain(probe)
        if expected.ndim != 2:
            raise TrainingError(
                f"The head of {backbone.name} takes {list(expected.shape)}, not one vector a photo.",
                "Train it with --strategy last-blocks or full.",
            )
        if device.type != "cpu":
            return plain
        try:
            fast = _OnnxTrunk(network, probe)
            difference = float(np.abs(fast(probe) - expected).max())
        except Exception as error:  # an operator the exporter or onnxruntime lacks, a graph over 2 GB, no onnxruntime
            plain.note = f"Features are computed by torch, more slowly: onnxruntime can't ({first_line(error)})."
            return plain
    if difference <= _AGREEMENT * max(1.0, float(np.abs(expected).max())):
        return fast
    plain.note = (
        f"Features are computed by torch, more slowly: onnxruntime's differ by {difference:.1e}."
    )
    return plain


def _probe(backbone: Backbone) -> NDArray[np.uint8]:
    """One picture of noise of the size that the network takes, the same every time."""
    return np.random.default_rng(0).integers(0, 256, (1, *backbone.size, 3), np.uint8)


def _to_onnx(network: _Headless, example: NDArray[np.uint8]) -> bytes:
    """Of one size alone: onnxruntime then computes paddings beforehand and melts them into the convolutions."""
    buffer = io.BytesIO()
    with quiet(), plain_attention():
        torch.onnx.export(
            network,
            (torch.from_numpy(example),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=_OPSET,
            input_names=["pixels"],
            output_names=["features"],
        )
    return buffer.getvalue()
