"""The linear discriminant: scikit-learn's solution, also for parts of the photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from edgetl.training.head.discriminant import ClassMoments, ClassNormals
from edgetl.training.head.feature_scaling import FeatureScaling
from edgetl.training.head.logistic_regression import LogisticRegression


def digit_problem(class_weights: NDArray[np.float32]) -> LogisticRegression:
    values, labels = (torch.from_numpy(part[:300]) for part in load_digits(return_X_y=True))
    scaled = FeatureScaling.fit(values.float()).apply(values.float())
    return LogisticRegression(scaled, labels, torch.from_numpy(class_weights)[labels], 10, 64)


def scatter(values: NDArray[np.float64], labels: NDArray[np.int64], priors: NDArray[np.float64]):
    """Covariance within classes, the slow and obvious way."""
    within = [values[labels == label] for label in range(len(priors))]
    return sum(
        prior * np.cov(photos.T, bias=True) for prior, photos in zip(priors, within, strict=True)
    )


class ShrunkCovariance:
    """For scikit-learn, whose own shrinkage standardises the features of each class first."""

    def __init__(self, covariance: NDArray[np.float64], shrinkage: float) -> None:
        width = len(covariance)
        self.covariance_ = (1 - shrinkage) * covariance + shrinkage * np.trace(
            covariance
        ) / width * np.eye(width)

    def fit(self, values: object) -> ShrunkCovariance:
        return self


@pytest.mark.parametrize("shrinkage", [0.6, 0.01])
@pytest.mark.parametrize("weights", [np.ones(10), np.linspace(0.2, 3, 10)])
def test_it_is_the_solution_of_scikit_learn(shrinkage: float, weights: NDArray[np.float64]) -> None:
    problem = digit_problem(weights.astype(np.float32))
    values, labels = problem.values.double().numpy(), problem.targets.numpy()
    priors = np.bincount(labels) * weights / (np.bincount(labels) * weights).sum()
    reference = LinearDiscriminantAnalysis(
        solver="lsqr",
        priors=priors,
        covariance_estimator=ShrunkCovariance(scatter(values, labels, priors), shrinkage),
    ).fit(values, labels)
    found = ClassMoments.measure(problem).normals().discriminant(shrinkage).numpy()
    logits = values @ found[:, :-1].T + found[:, -1]
    expected = reference.decision_function(values)
    np.testing.assert_allclose(
        logits - logits.mean(1, keepdims=True),
        expected - expected.mean(1, keepdims=True),
        atol=1e-3,
    )


def test_the_moments_of_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.training.head.discriminant._CHUNK", 77)
    problem = digit_problem(np.ones(10, np.float32))
    first, rest = (
        ClassMoments.measure(problem.subset(rows)) for rows in torch.arange(300).split([90, 210])
    )
    whole = ClassMoments.measure(problem)
    for found in (first + rest, whole):
        np.testing.assert_allclose((found - first).squares, rest.squares, atol=1e-3)
        assert torch.equal((found - first).counts, rest.counts)


def test_a_class_that_no_photo_is_of_is_improbable() -> None:
    problem = digit_problem(np.ones(10, np.float32))
    others = problem.subset((problem.targets != 3).nonzero()[:, 0])
    found = ClassMoments.measure(others).normals().discriminant(0.1)
    logits = others.values.double() @ found[:, :-1].T + found[:, -1]
    assert torch.isfinite(logits).all() and not (logits.argmax(1) == 3).any()


def test_photos_that_do_not_differ_within_classes_are_no_error() -> None:
    values, labels = torch.eye(3), torch.arange(3)
    found = ClassMoments.measure(LogisticRegression(values, labels, torch.ones(3), 3, 3))
    solution = found.normals().discriminant(0.003)
    assert (values.double() @ solution[:, :-1].T + solution[:, -1]).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("features", [64, 10_000_000])
def test_single_precision_is_tried_and_left_where_features_hardly_vary(features: int) -> None:
    direction = torch.linspace(1, 2, 64, dtype=torch.float64)
    means = torch.stack([direction, -direction]) / 10
    covariance = direction.outer(direction)  # and nothing in all other directions
    normals = ClassNormals(torch.zeros(2, dtype=torch.float64), means, covariance, features)
    found, exact = normals.discriminant(0.01, torch.float32), normals.discriminant(0.01)
    assert torch.equal(found, exact) == (features > 64)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3)
