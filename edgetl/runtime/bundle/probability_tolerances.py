"""How far a probability may be from the trained network's.

``parity/tolerances.py`` says where the figures come from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

PROBABILITY_TOLERANCES = {"fp32": 1e-4, "fp16": 2.5e-2, "int8": 0.25}
"""Largest difference of a probability from the trained network's, by the precision of the model."""

SAME_MODEL_TOLERANCES = {"fp32": 1e-4, "fp16": 2.5e-2, "int8": 5e-2}
"""The same, from this model's own answers where it was exported: what another CPU changes."""


def logits_limit(tolerance: float, temperature: float, logits: ArrayLike) -> float:
    """Largest difference of a logit for ``tolerance`` on the probabilities of these ``logits``."""
    largest = float(np.abs(np.asarray(logits)).max(initial=0.0))
    return 2 * tolerance * (max(temperature, largest) if np.isfinite(largest) else temperature)


def activation_limit(tolerance: float) -> float:
    """Largest change of an activation in units of its size, which ``tolerance`` stands for.

    It is also that of an embedding, whose photo is a vector of length 1.
    """
    return 2 * tolerance


def score_limit(tolerance: float, sensitivity: float) -> float:
    """Largest difference of an ``ood_score`` for ``tolerance`` on the probabilities.

    sensitivity  ``UnknownLimits.sensitivity``
    """
    return activation_limit(tolerance) * sensitivity
