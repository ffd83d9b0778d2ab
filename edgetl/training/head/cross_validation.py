"""Cross-validation of linear heads: which kind, how regularised, and how large the loss will be.

Tried are logistic regressions with several C, linear discriminants with several shrinkages, and the
mean of the best of both. A penalty also shrinks the logits, which says nothing about which class is
right. So each is judged by its log loss at its own best temperature, which is part of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.training.head.discriminant import LEAST_VARIANCE, ClassMoments, ClassNormals
from edgetl.training.head.folds import deal_folds
from edgetl.training.head.label_issues import LabelIssue, find_label_issues
from edgetl.training.head.logistic_regression import LogisticRegression
from edgetl.training.head.temperature import fit_temperature, log_likelihoods

C_VALUES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 5))
"""What is tried, 1e-4 … 100: from the strongest penalty on."""
DEFAULT_C = 10.0**-1
"""Used where there are too few photos to choose."""
SHRINKAGES = (0.9, 0.8, 0.6, 0.3, 0.1, 0.03, 0.01, 0.003)
"""What is tried: from the strongest on."""

_FIRST_C = 2  # place in these: the search goes downhill from there
_FIRST_SHRINKAGES = 4, 3  # of more photos than features, and of fewer
_STEPS = 12  # of L-BFGS, from the solution for the last C: more did not change the choice
_TEMPERATURES = (1e-2, 1e4)  # a discriminant of few photos is surer than it should be
_LEAST_SPREAD = 0.5  # variance within classes without a fold, as a share of that of all photos
_FEWEST_COMPARED = 20  # photos, below which the standard error of their mean loss means nothing


@dataclass(frozen=True)
class CVScore:
    """How well one head does on held-out photos.

    parameter    C of a logistic regression, shrinkage of a discriminant
    temperature  the one with the lowest loss
    loss         mean log loss at that temperature, nats
    accuracy     0..1
    """

    parameter: float
    temperature: float
    loss: float
    accuracy: float


@dataclass(frozen=True)
class HeadRecipe:
    """What is fitted: the logits are those of two linear models, each times a factor, added.

    C             of the logistic regression
    logistic      factor of its logits; 0: there is none
    shrinkage     of the discriminant
    discriminant  factor of its logits; 0: there is none
    """

    C: float = DEFAULT_C
    logistic: float = 1.0
    shrinkage: float = 0.0
    discriminant: float = 0.0

    def describe(self) -> str:
        """Such as "logistic regression (C = 0.1)"."""
        parts = []
        if self.logistic:
            parts.append(f"logistic regression (C = {self.C:.3g})")
        if self.discriminant:
            parts.append(f"a linear discriminant (shrinkage {self.shrinkage:g})")
        return ("the mean of " if len(parts) > 1 else "") + " and ".join(parts)


@dataclass(frozen=True)
class CVResult:
    """What cross-validation found.

    recipe              of the head with the lowest loss
    score               its score
    logistic_scores     of every C that was tried
    shrinkage_scores    of every shrinkage that was tried
    start               float32 [1, classes, dimensions + 1] on the CPU, the mean of the folds'
                        logistic regressions for the best C
    photos              int64 [N], the rows of the photos that could be judged
    logits              float32 [N, classes] of the head when it was fitted without them, divided
                        by its temperature
    losses              float64 [M ≤ N], the weighted log losses of the first ones, whose mean is
                        the score's; the others were in no fold
    label_issues        the likeliest errors first
    """

    recipe: HeadRecipe
    score: CVScore
    logistic_scores: tuple[CVScore, ...]
    shrinkage_scores: tuple[CVScore, ...]
    start: Tensor
    photos: NDArray[np.int64]
    logits: NDArray[np.float32]
    losses: NDArray[np.float64]
    label_issues: tuple[LabelIssue, ...]


@dataclass(frozen=True)
class _Trial:
    """A head of every fold, judged on the photos of that fold.

    solution  float32 [folds, classes, dimensions + 1], divided by the temperature
    logits    float32 [judged photos, classes], divided by the temperature
    losses    float64 [judged photos], weighted
    """

    score: CVScore
    solution: Tensor
    logits: NDArray[np.float32]
    losses: NDArray[np.float64]


class CrossValidation:
    """Heads fitted to all photos but those of a fold, and judged on these.

    A class whose photos are all in one fold is not judged. Penalties so strong that they would
    drown it are then not tried.

    moments       of all photos, if they were measured; ``Candidate.solve`` uses them up
    discriminant  the best linear discriminant, and the scores of all that were tried. None if no
                  photo can be judged, if cancelled, or where the photos of a class hardly differ,
                  in all or without a fold: such as two of each class, of which one is held out.
                  The temperature would then suit no other photos.
    """

    def __init__(
        self, problem: LogisticRegression, ranks: NDArray[np.int64], cancelled: Event
    ) -> None:
        """ranks: see ``rank_photos``. cancelled: set when the results are no longer needed."""
        labels = problem.targets.cpu().numpy()
        self._whole, self._cancelled = problem, cancelled
        self._folds = deal_folds(labels, ranks, problem.classes)
        self._problem = problem.subset(torch.from_numpy(self._folds.rows))
        self._held_out = torch.from_numpy(self._folds.fold).to(problem.targets.device)
        self._labels = labels[self._folds.rows][self._folds.judged]
        self._weights = self._problem.weights.cpu().numpy()[self._folds.judged]
        self.moments: ClassMoments | None = None
        # Not a cached property: Python 3.11 computes those of all instances one after the other.
        self.discriminant = self._linear_discriminant()

    def _linear_discriminant(self) -> tuple[_Trial, tuple[CVScore, ...]] | None:
        normals = self._normals()
        if not normals:
            return None

        def solve(place: int) -> Tensor:
            solutions = [each.discriminant(SHRINKAGES[place], torch.float32) for each in normals]
            return torch.stack(solutions).float()

        few = len(self._labels) < self._problem.features
        return self._downhill(SHRINKAGES, _FIRST_SHRINKAGES[few], solve)

    @cached_property
    def result(self) -> CVResult | None:
        """Of the best head of any kind; None if no photo can be judged, or if cancelled."""
        logistic = self._logistic_regression() if self._folds.judged.any() else None
        discriminant = logistic and self.discriminant
        if logistic is None or self._cancelled.is_set():
            return None
        first, logistic_scores = logistic
        chosen = first
        recipe = HeadRecipe(first.score.parameter, 1 / first.score.temperature)
        shrinkage_scores: tuple[CVScore, ...] = ()
        if discriminant:
            second, shrinkage_scores = discriminant
            both = self.judge(0.0, (first.solution + second.solution) / 2)
            chosen = min((both, first, second), key=lambda trial: trial.score.loss)
            factor = 1 / (2 * both.score.temperature) if chosen is both else 1.0
            recipe = HeadRecipe(
                first.score.parameter,
                0.0 if chosen is second else factor / first.score.temperature,
                second.score.parameter,
                0.0 if chosen is first else factor / second.score.temperature,
            )
        photos, logits = self._all_held_out(chosen)
        labels = self._whole.targets.cpu().numpy()[photos]
        return CVResult(
            recipe,
            chosen.score,
            logistic_scores,
            shrinkage_scores,
            (first.solution.mean(0, keepdim=True) * first.score.temperature).cpu(),
            photos,
            logits,
            chosen.losses,
            find_label_issues(logits, labels, photos),
        )

    def judge(self, parameter: float, solution: Tensor) -> _Trial:
        """solution: float32 [folds, classes, dimensions + 1]."""
        logits = self._problem.logits(solution, self._held_out).cpu().numpy()[self._folds.judged]
        score, losses = score_logits(parameter, logits, self._labels, self._weights)
        calibrated = (logits / score.temperature).astype(np.float32)
        return _Trial(score, solution / score.temperature, calibrated, losses)

    def _downhill(
        self, parameters: Sequence[float], first: int, solve: Callable[[int], Tensor]
    ) -> tuple[_Trial, tuple[CVScore, ...]] | None:
        """The trial of the lowest loss, and the scores of all; None if cancelled.

        first  place of the parameter that is tried first, if there are so many: from there on, the
               next is tried for as long as the loss falls, or else the one before
        solve  place of a parameter → its solution
        """
        trials: dict[int, _Trial] = {}

        def loss(place: int) -> float:
            if place not in trials and not self._cancelled.is_set():
                trials[place] = self.judge(parameters[place], solve(place))
            return trials[place].score.loss if place in trials else math.inf

        best = min(first, len(parameters) - 1)
        lowest = loss(best)
        for step in (1, -1):
            while 0 <= best + step < len(parameters) and (other := loss(best + step)) < lowest:
                best, lowest = best + step, other
        if self._cancelled.is_set():
            return None
        return trials[best], tuple(trials[place].score for place in sorted(trials))

    def _logistic_regression(self) -> tuple[_Trial, tuple[CVScore, ...]] | None:
        """The best logistic regression, and the scores of all; None if cancelled."""
        folds = torch.arange(self._folds.count, device=self._held_out.device)
        used = self._held_out[:, None] != folds
        strongest = 0 if self._folds.judged.all() else C_VALUES.index(DEFAULT_C)
        values, solved = C_VALUES[strongest:], dict[int, Tensor]()

        def solve(place: int) -> Tensor:
            start = solved.get(place - 1, solved.get(place + 1))
            solved[place] = self._problem.solve(values[place], start, _STEPS, used)
            return solved[place]

        return self._downhill(values, max(_FIRST_C - strongest, 0), solve)

    def _normals(self) -> list[ClassNormals]:
        """The classes' normal distributions without each fold. None where they say too little."""
        if not self._folds.judged.any():
            return []
        parts = [
            ClassMoments.measure(self._problem.subset((self._held_out == fold).nonzero()[:, 0]))
            for fold in range(self._folds.count)
        ]
        everything = reduce(add, parts)
        if len(self._folds.rows) == len(self._whole.targets):
            self.moments = everything
        least = max(everything.variance() * _LEAST_SPREAD, LEAST_VARIANCE)
        if any((everything - part).variance() <= least for part in parts):
            return []
        normals = []
        while parts:  # one is freed as one is made: they are large
            normals.append((everything - parts.pop(0)).normals())
        return normals

    def _all_held_out(self, chosen: _Trial) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The photos that can be judged, and their logits: also those that are in no fold."""
        logits, photos = chosen.logits, self._folds.rows[self._folds.judged]
        labels = self._whole.targets.cpu().numpy()
        others = np.setdiff1d(np.flatnonzero(np.isin(labels, labels[photos])), self._folds.rows)
        if not len(others):
            return photos, logits
        rest = self._whole.subset(torch.from_numpy(others))
        mean = chosen.solution.mean(0, keepdim=True)
        further = rest.logits(mean, torch.zeros_like(rest.targets)).cpu().numpy()
        return np.append(photos, others), np.concatenate([logits, further])


def score_logits(
    parameter: float,
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> tuple[CVScore, NDArray[np.float64]]:
    """(score, float64 [photos]: their weighted losses, whose mean is the score's loss)."""
    temperature = fit_temperature(logits, labels, weights, _TEMPERATURES)
    losses = -log_likelihoods(logits, labels, temperature) * (weights / weights.mean())
    right = np.average(logits.argmax(1) == labels, weights=weights)
    return CVScore(parameter, temperature, float(losses.mean()), float(right)), losses


def loss_improvement(baseline: CrossValidation | None, other: CrossValidation | None) -> float:
    """By how many standard errors the loss of ``other`` is lower; 0 if that can't be told.

    That of the best discriminants, which are found much sooner than logistic regressions and fare
    better or worse by the same features; of the best heads of any kind where there are none.
    """
    if baseline is None or other is None:
        return 0.0
    if baseline.discriminant and other.discriminant:
        return _lowered(baseline.discriminant[0].losses, other.discriminant[0].losses)
    if baseline.result and other.result:
        return _lowered(baseline.result.losses, other.result.losses)
    return 0.0


def _lowered(baseline: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """By how many standard errors the mean of float64 [N] ``other`` is lower than the baseline's.

    0 for so few that the standard error means nothing.
    """
    if len(baseline) < _FEWEST_COMPARED:
        return 0.0
    differences = baseline - other
    error = differences.std() / np.sqrt(len(differences))
    return float(differences.mean() / max(error, np.finfo(error.dtype).tiny))
