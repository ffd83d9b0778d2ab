"""From which confidence on answers are right as often as someone wants them to be.

Candidates are tried in a fixed order, from the most confident answers to all of them, as long as
each is significant: that many answers with that few mistakes would be seen with a probability of
5 % at most if answers from this confidence on were right less often than wanted. So trying many
thresholds costs nothing: 5 % is the probability that any of them is taken wrongly (fixed sequence
testing; Angelopoulos, Bates, Candès, Jordan & Lei 2021, Learn then Test). Each test is that of
Clopper & Pearson (1934): an exact one, on a binomial count.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from edgetl.evaluation.exact_tests import binomial_tail
from edgetl.evaluation.labelled_answers import LabelledAnswers

SURE_CONFIDENCE = 0.95
TARGETS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Of the table in reports."""

_MISTAKES_ALLOWED = 2  # by the first candidate, if half of the answers are enough for that
_MAX_CANDIDATES = 1000


@dataclass(frozen=True)
class SureThreshold:
    """How answers are, of which a share of ``precision`` should be right.

    precision  0..1
    photos     that were answered
    threshold  confidence from which on they are right so often; None: that can't be shown
    sure       number of answers from there on; 0 without a threshold
    right      how many of these are right
    needed     the fewest answers that could show it, all of them right
    """

    precision: float
    photos: int
    threshold: float | None
    sure: int
    right: int
    needed: int


def find_threshold(answers: LabelledAnswers, precision: float) -> SureThreshold:
    """The lowest confidence from which on answers are right often enough, with SURE_CONFIDENCE.

    answers    for photos that fitted nothing
    precision  share of right answers that is wanted, above 0 and below 1
    """
    confidences, is_right = answers.confidences, answers.is_right
    order = np.argsort(-confidences, kind="stable")
    ranked, mistakes = confidences[order], np.cumsum(~is_right[order])
    # Equal confidences are on the same side of every threshold.
    ends = np.append(np.flatnonzero(np.diff(ranked)) + 1, len(ranked))
    candidates = ends[ends >= _first_candidate(len(ranked), precision)]
    sure = 0
    for count in candidates[:: 1 + len(candidates) // _MAX_CANDIDATES].tolist():
        if not _shows(precision, count, int(mistakes[count - 1])):
            break
        sure = count
    return SureThreshold(
        precision,
        len(ranked),
        float(ranked[sure - 1]) if sure else None,
        sure,
        sure - int(mistakes[sure - 1]) if sure else 0,
        photos_needed(precision),
    )


@lru_cache  # a report asks for the same few again and again
def photos_needed(precision: float, mistakes: int = 0) -> int:
    """The fewest answers of which so many may be wrong."""
    return bisect_left(range(sys.maxsize), True, key=partial(_shows, precision, mistakes=mistakes))


def _shows(precision: float, photos: int, mistakes: int) -> bool:
    """Whether so few mistakes show, with SURE_CONFIDENCE, that answers are right so often."""
    return binomial_tail(mistakes, photos, 1 - precision) <= 1 - SURE_CONFIDENCE


def _first_candidate(photos: int, precision: float) -> int:
    """How many of the most confident answers are tried first; depends on no answer."""
    needed = [photos_needed(precision, allowed) for allowed in range(_MISTAKES_ALLOWED, 0, -1)]
    return next((count for count in needed if count <= photos / 2), photos_needed(precision))
