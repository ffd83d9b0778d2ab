"""Whether a quantized network gives logits of the same bits on every processor, and why not.

Known from its structure: every step between two roundings is exact (see ``quantized_steps.py``).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.exporting.precision.quantized_steps import QuantizedSteps
from edgetl.runtime.images.resize import normalize
from edgetl.runtime.images.spec import PreprocessSpec

_MAX_NAMED = 3  # reasons in one sentence


def input_values(spec: PreprocessSpec) -> NDArray[np.float32]:
    """All values that ``normalized`` takes: of 256 gray levels in three channels."""
    levels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 1, 256, 3)
    return normalize(levels, spec).reshape(-1)


def why_not_portable(model: onnx.ModelProto, spec: PreprocessSpec) -> str:
    """What keeps the logits of ``model`` from being the same everywhere; "" if nothing does.

    model  ``normalized`` → ``logits``, as ``Quantizer`` gives it
    """
    found = QuantizedSteps(model, input_values(spec))
    reasons = Counter(
        step.problem or "a result near a tie"
        for step in found.steps
        if not step.is_exact(found.scales)
    )
    named = [
        f"{reason} (×{count})" if count > 1 else reason
        for reason, count in reasons.most_common(_MAX_NAMED)
    ]
    return "; ".join([*named, "…"] if len(reasons) > _MAX_NAMED else named)
