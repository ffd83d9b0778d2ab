"""A linear head on frozen features: logistic regression, a linear discriminant, or their mean.

Which of them, and how regularised, is chosen by cross-validation within the training photos;
validation photos are never looked at. Scaling of the features and temperatures fold into the
weights, so the result is one linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.errors import TrainingError
from edgetl.system.machine import cores
from edgetl.training.head.cross_validation import (
    CrossValidation,
    CVResult,
    HeadRecipe,
    loss_improvement,
)
from edgetl.training.head.discriminant import ClassMoments
from edgetl.training.head.feature_scaling import FeatureScaling
from edgetl.training.head.folds import rank_photos
from edgetl.training.head.label_issues import LabelIssue
from edgetl.training.head.logistic_regression import LogisticRegression
from edgetl.training.torch_env.torch_flags import full_precision, one_thread

_SMALL = 80_000_000  # photos × features × classes: some 3 s of work on one core
_MOST_STEPS = 500


@dataclass(frozen=True)
class Head:
    """A linear classifier on raw features: logits = features @ weight.T + bias.

    weight            float32 [classes, features]
    bias              float32 [classes]
    recipe            how it was fitted
    logistic          weight and bias like these, of the logistic regression that is a part of it
    cross_validation  what chose that; None if the recipe was given, or there were too few photos
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    recipe: HeadRecipe
    logistic: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    cross_validation: CVResult | None = None

    @property
    def label_issues(self) -> tuple[LabelIssue, ...]:
        """Training photos whose label looks wrong, the most confident first."""
        return self.cross_validation.label_issues if self.cross_validation else ()

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Float32 [N, features] → [N, classes]."""
        return features @ self.weight.T + self.bias


def fit_head(
    features: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64],
    classes: int,
    *,
    digests: Sequence[str] | None = None,
    recipe: HeadRecipe | None = None,
    start: Head | None = None,
    class_weights: Sequence[float] | None = None,
    widths: Sequence[int] = (),
    device: torch.device | None = None,
) -> Head:
    """Fit a head.

    features       float32 [N, features]
    labels         N integers in 0..classes-1
    digests        identify each photo: copies are put into the same fold (default: all differ)
    recipe         what to fit; None: cross-validate
    start          of that recipe, for most of the photos: fitting goes on from there
    class_weights  weight of each class's photos in the loss (default: all 1)
    widths         numbers of features that may be used, counted from the first one, in order of
                   preference: a later one is used if it lowers the discriminant's cross-validated
                   loss by more than one standard error (default: all features)
    device         where to compute (default: the CPU)

    The same input gives the same bits. Besides the features, each width needs the memory of two
    copies of them, of eight matrices [features, features] in double precision, and 1 GB: about 4 GB
    for 50,000 photos, 4,000 features and 100 classes.

    Raises TrainingError for fewer than two classes, or for features that are not finite.
    """
    values = torch.from_numpy(features).to(device)
    inputs = [values[..., :width] for width in widths or (values.shape[-1],)]
    with full_precision(), one_thread(_is_small(values, classes)):
        chosen = reduce(
            better_candidate,
            _candidates(inputs, labels, classes, digests, class_weights, recipe),
        )
        return chosen.solve(recipe or HeadRecipe(), start.logistic if start else None)


def improvement(
    features: NDArray[np.float32],
    baseline: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64],
    classes: int,
    *,
    digests: Sequence[str] | None = None,
    class_weights: Sequence[float] | None = None,
    device: torch.device | None = None,
) -> float:
    """By how many standard errors ``features`` lower the cross-validated loss of a head.

    baseline  float32 [N, features], other features of the same photos, to compare with

    The other arguments are those of ``fit_head``. Negative if they are worse than the baseline,
    0 if there are too few photos to tell. Raises TrainingError as ``fit_head`` does.
    """
    inputs = [torch.from_numpy(values).to(device) for values in (baseline, features)]
    with full_precision(), one_thread(_is_small(inputs[0], classes)):
        first, second = _candidates(inputs, labels, classes, digests, class_weights, None)
        return loss_improvement(first.validation, second.validation)


@dataclass(frozen=True)
class Candidate:
    """A head that may be chosen.

    validation  None if its recipe was given
    """

    scaling: FeatureScaling
    problem: LogisticRegression
    validation: CrossValidation | None

    def solve(
        self,
        recipe: HeadRecipe,
        start: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    ) -> Head:
        """The head of the best recipe, or of ``recipe`` without cross-validation.

        start  see ``Head.logistic``
        """
        found = self.validation.result if self.validation else None
        begin = self.scaling.unfold(*start) if start else None
        if found:
            recipe, begin = found.recipe, found.start
        solution, logistic = torch.zeros(1), None
        moments = self.validation.moments if self.validation else None
        normals = (moments or ClassMoments.measure(self.problem)).normals()
        if recipe.logistic:
            factor = normals.factor()
            fitted = self.problem.solve(recipe.C, begin, _MOST_STEPS, factor=factor)[0]
            solution, logistic = fitted.double() * recipe.logistic, self.scaling.fold(fitted)
        if recipe.discriminant:
            solution = solution + normals.discriminant(recipe.shrinkage) * recipe.discriminant
        return Head(*self.scaling.fold(solution), recipe, logistic, found)


def better_candidate(simpler: Candidate, other: Candidate) -> Candidate:
    """``other`` only if it is better by more than one standard error (Breiman et al., 1984)."""
    return other if loss_improvement(simpler.validation, other.validation) > 1 else simpler


def _is_small(values: Tensor, classes: int) -> bool:
    """Whether one thread computes as fast as several, which would wait for each other."""
    return values.numel() * classes < _SMALL


def _candidates(
    inputs: Sequence[Tensor],
    labels: Sequence[int] | NDArray[np.int64],
    classes: int,
    digests: Sequence[str] | None,
    class_weights: Sequence[float] | None,
    recipe: HeadRecipe | None,
) -> list[Candidate]:
    """A candidate for each of ``inputs``, float32 [photos, features], in the same order.

    On a CPU, problems that are small, or as many as there are cores, are solved side by side, each
    on one core. The other arguments, and the errors raised, are those of ``fit_head``.
    """
    device = inputs[0].device
    targets = torch.as_tensor(np.asarray(labels), dtype=torch.long, device=device)
    if classes < 2 or not len(targets):
        raise TrainingError(
            f"A head can't be fitted to {len(targets)} photos of {classes} classes."
        )
    if not all(torch.isfinite(values).all() for values in inputs):
        raise TrainingError(
            "The backbone's features are not finite numbers, so no head can be fitted to them.",
            "Are its weights damaged? Try others with --weights FILE.",
        )
    weights = torch.tensor(class_weights or [1.0] * classes, dtype=torch.float32, device=device)
    ranks, cancelled = rank_photos(targets.cpu().numpy(), digests), Event()

    def compute(values: Tensor) -> Candidate:
        scaling = FeatureScaling.fit(values)
        problem = LogisticRegression(
            scaling.apply(values), targets, weights[targets], classes, values.shape[1]
        )
        validation = None if recipe else CrossValidation(problem, ranks, cancelled)
        if validation and len(inputs) > 1:
            _ = validation.discriminant or validation.result  # what they are compared by
        return Candidate(scaling, problem, validation)

    one_each = _is_small(inputs[-1], classes) or cores() <= len(inputs)
    if len(inputs) == 1 or device.type != "cpu" or not one_each:
        return [compute(values) for values in inputs]
    with one_thread(), ThreadPoolExecutor(len(inputs)) as pool:
        try:
            return list(pool.map(compute, inputs))
        except BaseException:  # Ctrl-C, which would otherwise wait for all of them
            cancelled.set()
            raise
