"""A frozen backbone without its classifier layer, run by the fastest runtime there is."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.errors import TrainingError, first_line
from edgetl.onnx_graph.tracing import plain_attention, quiet
from edgetl.runtime.inference.session import import_onnxruntime, open_session
from edgetl.training.models.backbone import Backbone, Level
from edgetl.training.models.multi_level import with_levels
from edgetl.training.models.tapped_network import Tap, TappedNetwork
from edgetl.training.torch_env.device_transfer import channels_last
from edgetl.training.torch_env.oom_retry import halve_on_oom
from edgetl.training.torch_env.torch_flags import full_precision, one_thread

_OPSET = 17
_TOLERANCE = 1e-3  # largest difference between the two runtimes, as a share of the largest feature
_GPU_BATCH = 64

Seen: TypeAlias = Literal["features", "means", "logits"]
"""What is computed of a photo: the input of a classifier layer that is linear; the same, or the
means over the places of a classifier layer that is a convolution; or the whole network's logits."""


class FeatureExtractor(Protocol):
    """Computes features.

    name        what runs it ("onnxruntime 1.32.0")
    note        why it is not the fastest runtime, or None
    batch       how many photos to pass at once
    concurrent  whether several threads may call it at the same time, each call using one core
    """

    name: str
    note: str | None
    batch: int
    concurrent: bool

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Uint8 [N, h, w, 3], resized and cropped → float32 [N, features].

        The features are the input of the classifier layer.
        """


class _Seen(nn.Module):
    """Uint8 [N, h, w, 3] → normalized → what is seen, float32 [N, features]."""

    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(self, backbone: Backbone, seen: Seen, levels: tuple[Level, ...]) -> None:
        super().__init__()
        backbone = replace(backbone, module=copy.deepcopy(backbone.module))
        if not backbone.levels:
            backbone = with_levels(backbone, levels)
        self.network: nn.Module = backbone.module
        if seen == "means":
            self.network = TappedNetwork(self.network, {seen: Tap(backbone.head, pooled=True)})
        elif seen == "features":
            self.network.set_submodule(backbone.head, nn.Identity())
        scale, bias = backbone.spec.normalization
        self.register_buffer("scale", torch.from_numpy(scale)[:, None, None])
        self.register_buffer("bias", torch.from_numpy(bias)[:, None, None])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        # Permuted first: uint8 is a quarter of the bytes, and the sums below run along rows.
        planes = pixels.permute(0, 3, 1, 2)
        found = self.network(planes.float() * self.scale + self.bias)
        features: torch.Tensor = found if isinstance(found, torch.Tensor) else found[1]
        return features


class OnnxExtractor:
    """By onnxruntime on the CPU, one photo a call and one core a call.

    Faster than batches, whose activations do not fit into the cores' caches.
    """

    batch = 1
    concurrent = True

    def __init__(self, network: _Seen, example: NDArray[np.uint8]) -> None:
        self.name = f"onnxruntime {import_onnxruntime().__version__}"
        self.note: str | None = None
        self._session = open_session(_to_onnx(network, example), providers="cpu", threads=1)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``FeatureExtractor``."""
        (features,) = self._session.run(None, {"pixels": pixels})
        return np.asarray(features, np.float32)


class _TorchExtractor:
    """By eager torch in float32, channels-last."""

    concurrent = False

    def __init__(self, network: _Seen, device: torch.device) -> None:
        self.name = f"torch {torch.__version__}"
        self.note: str | None = None
        # On the CPU, the other photos of a batch change the last bits of a feature, and which
        # photos these are depends on the cache.
        self.batch = 1 if device.type == "cpu" else _GPU_BATCH
        self._device = device
        self._network = channels_last(network, device)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), full_precision():
            features = halve_on_oom(
                lambda some: self._network(torch.from_numpy(some).to(self._device)), pixels
            )
        return np.asarray(features.cpu().numpy(), np.float32)


def open_feature_extractor(
    backbone: Backbone, device: torch.device, seen: Seen, levels: tuple[Level, ...]
) -> FeatureExtractor:
    """The backbone's frozen part on ``device``: onnxruntime on the CPU if that works, else torch.

    levels  whose means are seen after the backbone's own features, if its head uses none yet

    Raises TrainingError for a backbone whose head has no such features.
    """
    hint = "Train it with --strategy last-blocks or full."
    if backbone.has_linear_head and seen == "means":
        seen = "features"
    has_some = backbone.has_convolution_head if seen == "means" else backbone.has_linear_head
    if seen != "logits" and not has_some:
        raise TrainingError(
            f"The head of {backbone.name} is not one linear layer on a vector of features.", hint
        )
    network = _Seen(backbone, seen, levels).eval().requires_grad_(False)
    eager = _TorchExtractor(network, device)
    noise = np.random.default_rng(0).integers(0, 256, (1, *backbone.size, 3), np.uint8)
    with one_thread():
        expected = eager(noise)
        if expected.ndim != 2:
            shape = list(expected.shape)
            raise TrainingError(
                f"The head of {backbone.name} takes {shape}, not one vector per photo.", hint
            )
        if device.type != "cpu":
            return eager
        try:
            fast = OnnxExtractor(network, noise)
            difference = float(np.abs(fast(noise) - expected).max())
        except Exception as error:  # an operator is missing, the graph is over 2 GB, no onnxruntime
            reason = f"onnxruntime can't ({first_line(error)})"
        else:
            if difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
                return fast
            reason = f"onnxruntime's differ by {difference:.1e}"
    eager.note = f"Features are computed by torch, more slowly: {reason}."
    return eager


def _to_onnx(network: _Seen, example: NDArray[np.uint8]) -> bytes:
    """An ONNX model for one size of photo.

    For a fixed size, onnxruntime computes paddings once and folds them into the convolutions.
    """
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
