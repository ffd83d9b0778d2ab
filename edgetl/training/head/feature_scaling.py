"""Standardisation of features before a penalised fit, and how it folds into the fitted weights."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, values: Tensor) -> FeatureScaling:
        """Measure float32 [photos, features]. The scaled features have a mean variance of 1."""
        deviation, mean = torch.std_mean(values, 0, correction=0)
        varying = deviation[deviation > 0]
        scale = deviation + (varying.median() if len(varying) else 1.0)
        return cls(mean, scale * (deviation / scale).square().mean().sqrt().clamp_min(1e-6))

    def apply(self, values: Tensor) -> Tensor:
        """Float32 [photos, features], raw → scaled."""
        return (values - self.mean) / self.scale

    def fold(self, solution: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Convert weights and biases for scaled features to those for raw features.

        solution  float32 [classes, features + 1], the bias in the last column
        Returns (weight [classes, features], bias [classes]).
        """
        weight = solution[:, :-1].double() / self.scale.double()
        bias = solution[:, -1].double() - weight @ self.mean.double()
        return weight.float().cpu().numpy(), bias.float().cpu().numpy()
