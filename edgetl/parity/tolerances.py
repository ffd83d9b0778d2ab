"""How far a runtime may be from the trained network, and why that far.

The tolerance is a limit on probabilities. The limits of the other stages follow from it or are 0:

decoded, resized   0: the contract is integer arithmetic, every value must be the same
normalized         1e-5, a thousandth of a gray level: one product and one sum of float32 numbers
                   below 3, whose last bits (2.4e-7 each) may differ where a compiler fuses the two
logits             2 × tolerance × max(temperature, largest logit of the photo in the reference).
                   For softmax(z / T), |Δp| ≤ max|Δz| / 2T, so 2 × tolerance × T on logits
                   guarantees the tolerance on probabilities; rounding errors of floats are
                   relative, so large logits may differ by more. Without this limit, a changed
                   weight would not show where the probabilities are saturated at 1.
probabilities      the tolerance
embedding          2 × tolerance: the features' direction is a vector of length 1, and the tolerance
                   stands for activations that are off by 2 × tolerance of their size, as above
ood_score          2 × tolerance × sensitivity of the score, which the model card has: a distance d
                   changes by up to 2√d times what the direction changes by, the entropy by about
                   once the relative change of the logits; each is divided by its spread
evidence           the limit of logits / √places: a logit is the sum over all places, and errors of
                   either sign add up to √places times one of them

Where the default tolerances come from, for about 100 layers and logits of about 10; u is half the
spacing of numbers near 1:

fp32   u = 2^-24. The rounding error of a sum of 1,000 products is about √1000 u = 2e-6 of its size,
       that of 100 layers √100 times as much: 2e-5 of the logits, 2e-4, so 1e-4 on probabilities.
       Holds for CUDA with TF32 off. With TF32 on, the CUDA provider's default, u = 2^-11 in every
       product: three digits less, which is why that figure is shown but not judged.
fp16   u = 2^-11 on every stored activation (sums are kept in float32): √100 u = 5e-3 of the logits,
       0.05, so 2.5e-2 on probabilities.
int8   255 steps over a range that has to include the outliers: there is no useful bound for a
       single photo. The error of a logit does not shrink with the logits, so it is largest, for its
       limit, where the network is undecided, as on photos of other kinds. 0.25 detects what is
       broken, which most photos show: one in ten may lie beyond the limits of what the network
       computes. Judge int8 by its decisions over many photos, with --against and
       --max-accuracy-drop.

A flip, where the best class is not the reference's, fails if the reference's two best probabilities
lie further apart than the tolerance, whatever the other numbers are. If they lie closer it is a
tie, which is reported and does not fail. A photo that only one of the two calls unknown is a flip,
too, and a tie if the reference's score is as close to the threshold as the limit of scores for a
tolerance of 5e-2 at most: for the 0.25 of int8, nearly all are. Of int8, one photo in ten may have
another verdict further from the threshold. Ties are no accident where they are more than a fifth of
ten photos or more, and fail then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgetl.errors import ParityError
from edgetl.parity.stages import SOME_STAGES, Stages
from edgetl.runtime.bundle.probability_tolerances import (
    PROBABILITY_TOLERANCES,
    SAME_MODEL_TOLERANCES,
    activation_limit,
    logits_limit,
    score_limit,
)

NORMALIZED_TOLERANCE = 1e-5
INT8_OUTLIERS = 0.1
"""Share of photos that an int8 model may answer beyond the limits, 0..1."""
_COMPUTED = ("logits", "probabilities", *SOME_STAGES)  # by the network


def default_tolerance(precision: str) -> float:
    """Largest difference of a probability for a model of ``precision``.

    Raises ParityError if the precision is unknown.
    """
    if precision not in PROBABILITY_TOLERANCES:
        raise ParityError(
            f"There is no default tolerance for precision {precision!r}.",
            "Choose one with --tolerance.",
        )
    return PROBABILITY_TOLERANCES[precision]


@dataclass(frozen=True)
class Tolerance:
    """The limits for one runtime.

    probabilities  largest difference allowed, 0..1
    temperature    of the reference, above 0
    sensitivity    of the score, as ``UnknownLimits`` has it; 0 without one
    outliers       share of the photos for which what the network computes may be further off, 0..1
    """

    probabilities: float
    temperature: float = 1.0
    sensitivity: float = 0.0
    outliers: float = 0.0

    def limit(self, stage: str, reference: Stages) -> float:
        """Largest absolute difference at ``stage``, for a photo with the values ``reference``."""
        if stage == "normalized":
            return NORMALIZED_TOLERANCE
        if stage == "probabilities":
            return self.probabilities
        if stage == "embedding":
            return activation_limit(self.probabilities)
        if stage == "ood_score":
            return score_limit(self.probabilities, self.sensitivity)
        if stage in ("logits", "evidence") and reference.logits is not None:
            limit = logits_limit(self.probabilities, self.temperature, reference.logits)
            if stage == "logits" or reference.evidence is None:
                return limit
            return limit / math.sqrt(reference.evidence[0].size)
        return 0.0

    def photos_beyond(self, stage: str, photos: int) -> int:
        """How many of ``photos`` may lie beyond the limit at ``stage``."""
        return int(self.outliers * photos) if stage in _COMPUTED else 0

    @property
    def verdict(self) -> float:
        """How far from the threshold a score may be for another verdict to count as a tie."""
        probabilities = min(self.probabilities, SAME_MODEL_TOLERANCES["int8"])
        return score_limit(probabilities, self.sensitivity)
