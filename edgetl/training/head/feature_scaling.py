"""Standardisation of features before a penalised fit, and how it folds into the fitted weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class FeatureScaling:
    """Subtracts each feature's mean, and divides by its standard deviation plus the median one.

    Dividing by the standard deviation alone would amplify features that hardly vary; dividing all
    features by the same number would let a few large ones dominate.

    mean, scale  float32 [features]
    basis        float32 [features, dimensions], orthonormal: the scaled features are expressed in
                 it. None: as they are
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor | None = None

    @classmethod
    def fit(cls, values: Tensor) -> FeatureScaling:
        """Measure float32 [photos, features]. The scaled features have a mean variance of 1.

        Fewer photos than features only span as many dimensions. A fit that treats all directions
        alike finds the same weights in a basis of these, sooner.
        """
        deviation, mean = torch.std_mean(values, 0, correction=0)
        varying = deviation[deviation > 0]
        scale = deviation + (varying.median() if len(varying) else 1.0)
        scale *= (deviation / scale).square().mean().sqrt().clamp_min(1e-6)
        scaling = cls(mean, scale)
        if len(values) >= values.shape[1]:
            return scaling
        basis, _ = torch.linalg.qr(scaling.apply(values).double().T)
        return replace(scaling, basis=basis.float())

    def apply(self, values: Tensor) -> Tensor:
        """Float32 [photos, features], raw → [photos, dimensions], scaled."""
        scaled = (values - self.mean) / self.scale
        return scaled if self.basis is None else scaled @ self.basis

    def fold(self, solution: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Convert weights and biases for scaled features to those for raw features.

        solution  float [classes, dimensions + 1], the bias in the last column
        Returns float32 (weight [classes, features], bias [classes]).
        """
        weight, bias = solution[:, :-1].double(), solution[:, -1].double()
        if self.basis is not None:
            weight = weight @ self.basis.double().T
        weight = weight / self.scale.double()
        bias = bias - weight @ self.mean.double()
        return weight.float().cpu().numpy(), bias.float().cpu().numpy()

    def unfold(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Tensor:
        """What ``fold`` converts to these, float32 [classes, dimensions + 1]."""
        raw = torch.from_numpy(weight).to(self.mean)
        scaled = raw * self.scale
        if self.basis is not None:
            scaled = scaled @ self.basis
        return torch.cat([scaled, (torch.from_numpy(bias).to(raw) + raw @ self.mean)[:, None]], 1)
