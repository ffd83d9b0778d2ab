"""The embedding and the out-of-distribution score as a torch module."""

import torch
from torch import Tensor, nn

from edgetl.training.models.ood_detector import LEAST_LENGTH, SOFTENING, OODDetector


class OODScore(nn.Module):
    """See OODDetector, whose formula this computes in float32."""

    mean: Tensor
    projection: Tensor
    centres: Tensor
    centre_squares: Tensor

    def __init__(self, detector: OODDetector) -> None:
        super().__init__()
        for name in ("mean", "projection", "centres", "centre_squares"):
            self.register_buffer(name, torch.tensor(getattr(detector, name)))
        self.softening, self.least_length = SOFTENING, LEAST_LENGTH
        self.distance_mean, self.distance_std = detector.distance_mean, detector.distance_std
        self.entropy_mean, self.entropy_std = detector.entropy_mean, detector.entropy_std

    def forward(self, features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [N, features] and [N, classes] → scores float32 [N], embeddings [N, dims]."""
        length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        u = features / length.clamp(min=self.least_length) - self.mean
        embedding = u @ self.projection
        nearest = (embedding @ (-2 * self.centres.T) + self.centre_squares).amin(dim=1)
        distance = (u * u).sum(dim=1) + nearest
        log_q = torch.log_softmax(logits / self.softening, dim=1)
        entropy = -(log_q.exp() * log_q).sum(dim=1)
        score = (distance - self.distance_mean) / self.distance_std
        return score + (entropy - self.entropy_mean) / self.entropy_std, embedding
