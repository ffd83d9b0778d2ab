"""A classifier's answers for photos whose classes are known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledAnswers:
    """Probabilities and true classes of N photos.

    labels         class names, in the order of the outputs
    probabilities  float32 [N, classes]
    targets        int [N], the true classes
    is_unknown     bool [N], whether the model takes the photo for unknown; None: it can't tell
    """

    labels: Sequence[str]
    probabilities: NDArray[np.float32]
    targets: NDArray[np.integer]
    is_unknown: NDArray[np.bool_] | None = None

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Of each photo, whether the most probable class is its own."""
        return np.asarray(self.probabilities.argmax(1) == self.targets)

    @property
    def confidences(self) -> NDArray[np.float32]:
        """Of each photo, the probability of the most probable class."""
        return np.asarray(self.probabilities.max(1))

    def about(self, labels: Collection[str]) -> NDArray[np.bool_]:
        """Of each photo, whether its answer is one of ``labels``."""
        is_meant = np.array([name in labels for name in self.labels], np.bool_)
        return np.asarray(is_meant[self.probabilities.argmax(1)])
