"""Fitting an ``OODDetector``, its scale measured on photos that are not in its bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from edgetl.errors import TrainingError
from edgetl.evaluation.conformal import least_photos
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN
from edgetl.system.machine import cores
from edgetl.training.head.folds import Folds, deal_folds, rank_photos
from edgetl.training.head.held_out_answers import HeldOutAnswers
from edgetl.training.head.photo_bank import Bank, Moments
from edgetl.training.models.ood_detector import OODDetector, entropy, unit_length

T = TypeVar("T")

FEWEST_PHOTOS = least_photos(KEEP_KNOWN)
"""Held-out photos below which their highest score is not known to be above 95 % of others."""
_LEAST_SPREAD = 1e-6  # of distances, which in float32 are not more exact
_LEAST_ENTROPY_SPREAD = 1e-3  # nats: a head may be sure of every known photo


@dataclass(frozen=True, eq=False)
class PhotoFeatures:
    """What a network sees of photos.

    values   float32 [N, features], the input of its classifier layer
    labels   int64 [N]
    digests  [N], which copies of a photo share
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    digests: Sequence[str]

    def __add__(self, other: PhotoFeatures) -> PhotoFeatures:
        return PhotoFeatures(
            np.concatenate([self.values, other.values]),
            np.concatenate([self.labels, other.labels]),
            [*self.digests, *other.digests],
        )


@dataclass(frozen=True, eq=False)
class FittedDetector:
    """A detector, and how held-out photos score, by detectors whose bank is without them.

    detector         what is exported; its bank is of all photos that the result was fitted to
    held_out         their answers with embeddings and scores
    class_distances  float32 [M, classes], of held-out photos to the nearest centre of each class
    """

    detector: OODDetector
    held_out: HeldOut
    class_distances: NDArray[np.float32]


def require_photos(answers: HeldOutAnswers) -> None:
    """Raises TrainingError where there are too few photos to tell anything."""
    if (count := len(answers.labels)) < FEWEST_PHOTOS:
        raise TrainingError(
            f"That takes answers for {FEWEST_PHOTOS} photos that were not trained on, and there "
            f"are {count}, of copies of a photo one. Add photos."
        )


def fit_detector(
    answers: HeldOutAnswers,
    train: PhotoFeatures,
    val: PhotoFeatures,
    *,
    refit: bool,
) -> FittedDetector:
    """Fit one. Raises TrainingError where there are too few photos to tell anything.

    train, val  features of the same photos as ``answers`` speaks of
    refit       whether the result was fitted to the validation photos, too

    A training photo's distance is that to a bank of the folds without it, a validation photo's that
    to a bank of all training photos. Banks are of 20,000 photos at most, the same share of each
    class. The same photos give the same bits.
    """
    require_photos(answers)
    classes = answers.logits.shape[1]
    # The libraries of numpy and scipy have threads of their own, which wait for each other. Folds
    # are computed side by side instead: that is faster, and depends on no number of cores.
    with threadpool_limits(1, "blas"):
        train, val = _of_unit_length(train), _of_unit_length(val)
        bank, distances = _banks(answers, train, val, classes, refit=refit)
    nearest, undecided = distances.min(1), entropy(answers.logits)
    scale = _mean_and_spread(nearest), _mean_and_spread(undecided)
    if not _LEAST_SPREAD < scale[0][1] < np.inf:
        raise TrainingError(
            "The network sees no difference between the photos that were not trained on."
        )
    scale = scale[0], (scale[1][0], max(scale[1][1], _LEAST_ENTROPY_SPREAD))
    detector = OODDetector(bank.mean, bank.projection, bank.centres, *scale[0], *scale[1])
    held_out = HeldOut(
        answers.labels,
        answers.logits,
        detector.embed(answers.pick(train.values, val.values)).astype(np.float16),
        detector.combine(nearest, undecided),
    )
    return FittedDetector(detector, held_out, distances)


def _mean_and_spread(values: NDArray[np.float32]) -> tuple[float, float]:
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def _banks(
    answers: HeldOutAnswers, train: PhotoFeatures, val: PhotoFeatures, classes: int, *, refit: bool
) -> tuple[Bank, NDArray[np.float32]]:
    """(the bank to keep, ``FittedDetector.class_distances`` by banks without the photos).

    train, val  see ``_of_unit_length``
    """
    units, labels, folds = _dealt(train, classes)
    parts = _moments(units, folds)
    moments = reduce(add, parts)
    directions = moments.directions()
    bank = Bank.build(units, labels, moments, directions)
    # Of many classes, answers are for fewer photos than a bank is made of; of few, for more.
    distances = np.empty((len(answers.train), classes), np.float32)
    place = np.full(len(train.labels), -1)
    place[answers.train] = np.arange(len(answers.train))
    beyond = np.setdiff1d(answers.train, folds.rows)
    distances[place[beyond]] = bank.class_distances(train.values[beyond], classes)

    def hold_out(fold: int) -> None:
        held, rest = folds.fold == fold, moments - parts[fold]
        others = np.where(held, -1, labels)
        without = Bank.build(units, others, rest, rest.directions(directions))
        asked = held & (place[folds.rows] >= 0)
        distances[place[folds.rows[asked]]] = without.class_distances(units[asked], classes)

    if len(answers.train):
        _of_each_fold(hold_out, folds)
    of_val = bank.class_distances(val.values[answers.val], classes)
    if refit:
        all_units, all_labels, all_folds = _dealt(train + val, classes)
        moments = reduce(add, _moments(all_units, all_folds))
        bank = Bank.build(all_units, all_labels, moments, moments.directions(directions))
    return bank, np.concatenate([distances, of_val])


def _moments(units: NDArray[np.float32], folds: Folds) -> list[Moments]:
    """Of each fold of photos' features float32 [N, features] of unit length."""
    return _of_each_fold(lambda fold: Moments.of(units[folds.fold == fold]), folds)


def _of_each_fold(compute: Callable[[int], T], folds: Folds) -> list[T]:
    """What ``compute`` returns for each fold, on all cores."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(compute, range(folds.count)))


def _of_unit_length(photos: PhotoFeatures) -> PhotoFeatures:
    """With features divided by their length."""
    return replace(photos, values=unit_length(photos.values))


def _dealt(
    photos: PhotoFeatures, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], Folds]:
    """(features, labels, folds) of the photos that a bank is made of."""
    folds = deal_folds(photos.labels, rank_photos(photos.labels, photos.digests), classes)
    return photos.values[folds.rows], photos.labels[folds.rows], folds
