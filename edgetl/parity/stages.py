"""A photo's values on the way from the file to the prediction, where the runtimes are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

# Which not every model has: of those that can tell unknown photos, and of ONNX models with maps.
SOME_STAGES = ("embedding", "ood_score", "evidence")
# In the order of the data flow: the first that differs is where a runtime goes wrong.
STAGES = ("decoded", "resized", "normalized", "logits", "probabilities", *SOME_STAGES)


@dataclass(frozen=True, eq=False)
class Stages:
    """One photo's values in one runtime.

    None where the runtime doesn't show them, or shares that stage with the reference.

    decoded        uint8 [H, W, 3], upright RGB
    resized        uint8 [h, w, 3], after resize and crop
    normalized     float32 [3, h, w], what the network sees
    logits         float32 [classes]
    probabilities  float32 [classes], softmax(logits / temperature)
    embedding      float32 [dimensions], of models with a score; see OODDetector for both
    ood_score      float32 []
    evidence       float32 [classes, y, x], of models with maps
    """

    decoded: NDArray[Any] | None = None
    resized: NDArray[Any] | None = None
    normalized: NDArray[Any] | None = None
    logits: NDArray[Any] | None = None
    probabilities: NDArray[Any] | None = None
    embedding: NDArray[Any] | None = None
    ood_score: NDArray[Any] | None = None
    evidence: NDArray[Any] | None = None

    def at(self, stage: str) -> NDArray[Any] | None:
        """The values of one of STAGES."""
        value: NDArray[Any] | None = getattr(self, stage)
        return value


@dataclass(frozen=True)
class Refusal:
    """What a runtime returns instead of Stages for a photo that it refuses to decode."""

    reason: str


@dataclass(frozen=True)
class LeftOut:
    """What a runtime returns for a photo of a format that it does not decode by design."""
