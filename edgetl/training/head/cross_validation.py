"""Cross-validation of a linear head: which regularisation C, and how large the loss will be.

A penalty also shrinks the logits, which says nothing about which class is right. So each C is
judged by its log loss at its own best temperature, and that temperature is part of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from edgetl.training.head.label_issues import LabelIssue, find_label_issues
from edgetl.training.head.logistic_regression import LogisticRegression
from edgetl.training.head.temperature import fit_temperature

C_VALUES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 5))
"""What is tried, 1e-4 … 100: from the strongest penalty on."""
DEFAULT_C = 10.0**-1
"""Used where there are too few photos to choose."""

_FOLDS = 5
_PATIENCE = 2  # values in a row without a better loss, after which weaker penalties are not tried
MOST_PHOTOS = 20_000  # more hardly change which C is best
_MOST_LOGITS = 1_000_000  # photos × classes above which there are only two folds
_STEPS = 12  # of L-BFGS, from the solution for the last C: more did not change the choice
_FEWEST_COMPARED = 20  # photos, below which the standard error of their mean loss means nothing


@dataclass(frozen=True)
class CVScore:
    """How well one C does on held-out photos.

    temperature  the one with the lowest loss
    loss         mean log loss at that temperature, nats
    accuracy     0..1
    """

    C: float
    temperature: float
    loss: float
    accuracy: float


@dataclass(frozen=True)
class CVResult:
    """What cross-validation found.

    scores        of every C that was tried
    best          the one of the lowest loss
    solution      float32 [1, classes, features + 1], the mean of the folds' solutions for the best
    losses        float64 [photos], weighted, of each photo when it was held out, for the best
    label_issues  the most confident first
    """

    scores: tuple[CVScore, ...]
    best: CVScore
    solution: Tensor
    losses: NDArray[np.float64]
    label_issues: tuple[LabelIssue, ...]


def cross_validate(
    problem: LogisticRegression, ranks: NDArray[np.int64], cancelled: Event
) -> CVResult | None:
    """Try one C after the other while the loss improves; None if no photo can be judged.

    ranks      see ``rank_photos``; a photo's fold is its rank modulo the number of folds
    cancelled  set when the result is no longer needed

    A class whose photos are all in one fold is not judged, since no model has seen it when that
    fold is held out. Penalties so strong that they would drown it are then not tried.
    """
    all_labels = problem.targets.cpu().numpy()
    rows = _stratified(all_labels, ranks, problem.classes)
    labels, subset = all_labels[rows], problem.subset(torch.from_numpy(rows))
    folds = _FOLDS if len(rows) * problem.classes <= _MOST_LOGITS else 2
    fold = ranks[rows] % folds
    judged = np.isin(labels, labels[fold != 0])  # fold 0 has a photo of every class
    if not judged.any():
        return None
    held_out = torch.from_numpy(fold).to(problem.targets.device)
    used = held_out[:, None] != torch.arange(folds, device=held_out.device)
    weights = subset.weights.cpu().numpy()[judged]
    scores: list[CVScore] = []
    solution: Tensor | None = None
    found = None
    for C in C_VALUES if judged.all() else C_VALUES[C_VALUES.index(DEFAULT_C) :]:
        if cancelled.is_set():
            break
        solution = subset.solve(C, solution, _STEPS, used)
        logits = subset.logits(solution, held_out).cpu().numpy()[judged]
        score, losses = score_logits(C, logits, labels[judged], weights)
        scores.append(score)
        if found is None or score.loss <= found[0].loss:
            found = score, losses, logits, solution
        elif len(scores) - 1 - scores.index(found[0]) >= _PATIENCE:
            break
    if found is None:
        return None
    best, losses, logits, solution = found
    solution = solution.mean(0, keepdim=True)
    photos = rows[judged]
    others = np.setdiff1d(np.flatnonzero(np.isin(all_labels, labels[judged])), rows)
    if len(others):  # photos that no fold was fitted to
        everywhere = problem.logits(solution, torch.zeros_like(problem.targets)).cpu().numpy()
        logits, photos = np.concatenate([logits, everywhere[others]]), np.append(photos, others)
    issues = find_label_issues(logits / best.temperature, all_labels[photos], photos)
    return CVResult(tuple(scores), best, solution, losses, issues)


def rank_photos(
    labels: NDArray[np.int64], digests: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Each photo's rank, from 0, among the distinct photos of its class in order of digest.

    Digests are as good as random, and copies of a photo have the same one, whatever their names
    and order: so copies share a rank, and a fold. Without digests all photos are distinct.
    """
    keys = (
        np.random.default_rng(0).permutation(len(labels))
        if digests is None
        else np.asarray(digests)
    )
    ranks = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.unique(keys[members], return_inverse=True)[1]
    return ranks


def _stratified(
    labels: NDArray[np.int64], ranks: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Rows of at most ``MOST_PHOTOS`` photos: the same share of each class, copies counted once."""
    distinct = np.ones(classes)
    np.maximum.at(distinct, labels, ranks + 1.0)
    return np.argsort(ranks / distinct[labels], kind="stable")[:MOST_PHOTOS]


def score_logits(
    C: float, logits: NDArray[np.float32], labels: NDArray[np.int64], weights: NDArray[np.float32]
) -> tuple[CVScore, NDArray[np.float64]]:
    """(score, float64 [photos]: their weighted losses, whose mean is the score's loss)."""
    temperature = fit_temperature(logits, labels, weights)
    log_probabilities = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    losses = -log_probabilities[np.arange(len(labels)), labels] * (weights / weights.mean())
    right = np.average(logits.argmax(1) == labels, weights=weights)
    return CVScore(C, temperature, float(losses.mean()), float(right)), losses


def loss_improvement(baseline: CVResult | None, other: CVResult | None) -> float:
    """By how many standard errors the loss of ``other`` is lower; 0 if that can't be told."""
    if baseline is None or other is None or len(baseline.losses) < _FEWEST_COMPARED:
        return 0.0
    differences = baseline.losses - other.losses
    error = differences.std() / np.sqrt(len(differences))
    return float(differences.mean() / max(error, np.finfo(error.dtype).tiny))
