"""What a model states about its answers: measured on held-out photos, tested on others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgetl.evaluation.exact_tests import binomial_tail, clopper_pearson, hypergeometric_tail
from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.set_calibration import calibrate_sets
from edgetl.runtime.bundle.promises import Promises
from edgetl.runtime.bundle.share_interval import CONFIDENCE
from edgetl.runtime.bundle.statement import Figure, StatedShare

STATED_LEVELS = (0.9, 0.95)
"""Of the prediction sets whose coverage is stated."""
FALSE_ALARMS = 0.05
"""How often a statement that is true is found not to hold, at most."""


@dataclass(frozen=True)
class StatementCheck:
    """One stated share, and the same of other photos.

    stated       what the model states
    found        of these photos
    probability  of finding so few or fewer if the statement is true, 0..1
    holds        whether that is likely enough: with all shares taken together, a true statement is
                 found not to hold in FALSE_ALARMS of all cases at most
    """

    stated: StatedShare
    found: StatedShare
    probability: float
    holds: bool


def measure_promises(answers: LabelledAnswers, basis: str) -> Promises:
    """Prediction sets and a statement, from answers for at least one photo that fitted nothing.

    basis  what these photos are, in words
    """
    sets = calibrate_sets(answers)
    return restated(Promises(basis, sets, ()), answers)


def restated(promises: Promises, answers: LabelledAnswers) -> Promises:
    """The same promises, with a statement of how they are kept on ``answers``."""
    return replace(promises, statement=tuple(measured_shares(promises, answers)))


def measured_shares(promises: Promises, answers: LabelledAnswers) -> Iterator[StatedShare]:
    """Every share that is stated of ``promises``, of these photos."""
    rows, is_right = np.arange(len(answers.targets)), answers.is_right
    yield _share("accuracy", is_right)
    for level in STATED_LEVELS:
        if level in promises.prediction_sets.levels:
            labels = tuple(answers.labels)
            sets = promises.prediction_sets.members(answers.probabilities, labels, level)
            yield _share("coverage", sets[rows, answers.targets], level)
    if answers.is_unknown is not None:
        yield _share("known", ~answers.is_unknown)
    for rule in promises.sure_answers:
        about = answers.about([name for name in answers.labels if promises.about(name) == rule])
        sure = about & (answers.confidences >= rule.threshold)
        if about.any():
            yield _share("answered", sure[about], label=rule.label)
        if sure.any():
            yield _share("precision", is_right[sure], rule.precision, rule.label)


def check_statement(promises: Promises, answers: LabelledAnswers) -> tuple[StatementCheck, ...]:
    """Whether ``answers`` are as good as is stated; better ones never fail."""
    known = {(share.figure, share.level, share.label): share for share in promises.statement}
    pairs = [
        (known[key], found)
        for found in measured_shares(promises, answers)
        if (key := (found.figure, found.level, found.label)) in known
    ]
    checks = [(stated, found, _chance(stated, found)) for stated, found in pairs]
    return tuple(
        StatementCheck(*check, holds=check[-1] * len(checks) >= FALSE_ALARMS) for check in checks
    )


def _share(
    figure: Figure, counts: NDArray[np.bool_], level: float | None = None, label: str | None = None
) -> StatedShare:
    count, photos = int(counts.sum()), len(counts)
    interval = clopper_pearson(count, photos, CONFIDENCE)
    if figure == "precision":  # promised from below, so that all of the 5 % are on that side
        interval = clopper_pearson(count, photos, 2 * CONFIDENCE - 1)[0], 1.0
    return StatedShare(figure, count, photos, interval, level, label)


def _chance(stated: StatedShare, found: StatedShare) -> float:
    """The probability of a share as low as ``found``, or lower, if what is stated is true."""
    if found.figure == "precision":  # a promise; how it was kept before does not matter
        assert found.level is not None
        return binomial_tail(found.count, found.photos, found.level)
    # Fisher's exact test: the photos of both counts are alike, and drawn at random from all.
    right, photos = stated.count + found.count, stated.photos + found.photos
    return hypergeometric_tail(found.count, found.photos, right, photos)
