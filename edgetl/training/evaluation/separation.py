"""How well scores tell unknown photos from known ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.evaluation.conformal import conformal_limits
from edgetl.runtime.bundle.share_interval import wilson_interval
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN
from edgetl.training.head.detector_fit import FittedDetector
from edgetl.training.models.ood_detector import entropy

KEPT_SHARES = tuple(percent / 100 for percent in range(101))
"""Where a separation's curve is known."""
FEWEST = 5
"""Photos on either side, below which a separation says nothing."""

_MOST_GROUPS = 10  # of classes that are left out one after the other

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Separation:
    """Unknown photos of one kind against known ones.

    auroc      probability that an unknown photo scores higher than a known one, 0..1
    interval   of ``auroc``, at 95 %
    let_in     share of unknown photos at or below the score that keeps 95 % of known ones, 0..1
    photos     number of unknown photos
    known      number of known photos
    curve      share of unknown photos let in for each of ``KEPT_SHARES``
    """

    auroc: float
    interval: tuple[float, float]
    let_in: float
    photos: int
    known: int
    curve: tuple[float, ...]

    def figures(self) -> dict[str, Any]:
        """As JSON values, without the curve."""
        return {
            "auroc": round(self.auroc, 4),
            "auroc_interval": [round(bound, 4) for bound in self.interval],
            "let_in": round(self.let_in, 4),
            "photos": self.photos,
            "known": self.known,
        }


def separate(pairs: Sequence[tuple[Scores, Scores]]) -> Separation | None:
    """The mean over pairs of known and unknown photos' scores; None if there are too few photos.

    The interval is Wilson's, for as many photos as the fewer of both kinds.
    """
    known, unknown = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    pairs = [(old, new) for old, new in pairs if len(old) and len(new)]
    known = min((len(old) for old, _ in pairs), default=0)
    if min(known, unknown) < FEWEST:
        return None
    auroc = float(np.mean([_auroc(old, new) for old, new in pairs]))
    # At an AUROC of 0 or 1, rounding must not leave it outside.
    low, high = wilson_interval(round(auroc * min(known, unknown)), min(known, unknown))
    curve = np.mean([_let_in(old, new, KEPT_SHARES) for old, new in pairs], axis=0)
    let_in = float(np.mean([_let_in(old, new, [KEEP_KNOWN]) for old, new in pairs]))
    interval = min(low, auroc), max(high, auroc)
    return Separation(auroc, interval, let_in, unknown, known, tuple(curve.tolist()))


def left_out_scores(fitted: FittedDetector) -> list[tuple[Scores, Scores]]:
    """(scores of other classes, scores of the class) as if each class had not been trained on.

    An approximation that needs no further training: its centres are left out of every bank, and its
    logit out of the answers. More than ten classes are left out in ten groups. Empty for two
    classes, since one would be all that is left.
    """
    detector, held_out = fitted.detector, fitted.held_out
    classes = held_out.logits.shape[1]
    if classes < 3:
        return []
    found = []
    for group in range(min(classes, _MOST_GROUPS)):
        kept = np.arange(classes) % _MOST_GROUPS != group
        if kept.sum() < 2:
            continue
        distances = fitted.class_distances[:, kept].min(1)
        scores = detector.combine(distances, entropy(held_out.logits[:, kept]))
        finite, is_known = np.isfinite(scores), kept[held_out.labels]
        found.append((scores[finite & is_known], scores[finite & ~is_known]))
    return found


def _auroc(known: Scores, unknown: Scores) -> float:
    """Ties count half."""
    ordered = np.sort(known)
    below = np.searchsorted(ordered, unknown, "left") + np.searchsorted(ordered, unknown, "right")
    return float(below.mean() / (2 * len(known)))


def _let_in(known: Scores, unknown: Scores, levels: Sequence[float]) -> NDArray[np.float64]:
    limits = conformal_limits(known, levels)
    return np.searchsorted(np.sort(unknown), limits, "right") / len(unknown)
