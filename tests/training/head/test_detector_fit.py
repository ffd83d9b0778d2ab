"""The detector of unknown photos, fitted to features of known ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from edgetl.errors import TrainingError
from edgetl.training.head.detector_fit import (
    FEWEST_PHOTOS,
    FittedDetector,
    PhotoFeatures,
    fit_detector,
)
from edgetl.training.head.held_out_answers import HeldOutAnswers
from edgetl.training.head.photo_bank import Bank, Moments
from edgetl.training.models.ood_detector import entropy, unit_length

CLASSES, WIDTH = 3, 40


def features_of(count: int, seed: int, *, first: int = 0) -> PhotoFeatures:
    """``count`` photos around one direction a class, which is the same for every seed."""
    directions = 2 * np.random.default_rng(9).normal(size=(CLASSES + 1, WIDTH))
    labels = np.arange(count) % CLASSES
    noise = np.random.default_rng(seed).normal(size=(count, WIDTH))
    values = (directions[labels + first] + noise).astype(np.float32)
    return PhotoFeatures(values, labels, [f"{seed}-{row}" for row in range(count)])


def logits_of(photos: PhotoFeatures) -> np.ndarray:
    """Answers that say the label, not quite surely."""
    noise = np.random.default_rng(5).normal(size=(len(photos.labels), CLASSES))
    return (8 * np.eye(CLASSES)[photos.labels] + noise).astype(np.float32)


def answers_of(train: PhotoFeatures, val: PhotoFeatures, *, folds: bool) -> HeldOutAnswers:
    rows = np.arange(len(train.labels) if folds else 0)
    labels = np.concatenate([train.labels[rows], val.labels]).astype(np.int32)
    logits = np.concatenate([logits_of(train)[rows], logits_of(val)])
    return HeldOutAnswers(rows, np.arange(len(val.labels)), labels, logits)


@pytest.fixture(scope="module", params=[True, False], ids=["folds", "validation only"])
def fitted(request) -> FittedDetector:
    train, val = features_of(120, 1), features_of(60, 2)
    found = fit_detector(
        answers_of(train, val, folds=request.param), train, val, refit=request.param
    )
    assert isinstance(found, FittedDetector)
    return found


def test_the_formula_is_the_one_that_it_documents(fitted):
    detector, photos = fitted.detector, features_of(5, 3)
    logits = logits_of(photos)
    for row, (x, answer) in enumerate(zip(photos.values.astype(float), logits, strict=True)):
        u = x / np.linalg.norm(x) - detector.mean
        e = u @ detector.projection
        distance = u @ u + min(c @ c - 2 * e @ c for c in detector.centres.astype(float))
        q = np.exp(answer / 2.0) / np.exp(answer / 2.0).sum()
        expected = (distance - detector.distance_mean) / detector.distance_std
        expected += (-(q * np.log(q)).sum() - detector.entropy_mean) / detector.entropy_std
        assert detector.score(photos.values, logits)[row] == pytest.approx(expected, abs=2e-3)


def test_held_out_scores_are_those_that_new_known_photos_have(fitted):
    new = features_of(600, 4)
    scores = fitted.detector.score(new.values, logits_of(new))
    threshold = np.quantile(fitted.held_out.ood_score, 0.95)
    assert 0.9 < (scores <= threshold).mean() < 0.99
    # Photos of another direction are none of them.
    strange = features_of(60, 5)
    other = replace(strange, values=np.roll(strange.values, 7, axis=1))
    assert (fitted.detector.score(other.values, logits_of(other)) > threshold).all()


def test_no_photo_is_compared_with_itself():
    train, val = features_of(90, 1), features_of(30, 2)
    # Copies of one photo alone: were it in a bank, its distance would be 0.
    train.values[[0, 3]] = np.roll(train.values[0], 11)
    train = replace(train, digests=["same" if row in (0, 3) else str(row) for row in range(90)])
    found = fit_detector(answers_of(train, val, folds=True), train, val, refit=False)
    assert np.argmax(found.class_distances.min(1)[:90]) in (0, 3)


def test_the_same_photos_in_another_order_give_nearly_the_same_scores(fitted):
    train, val = features_of(120, 1), features_of(60, 2)
    order = np.random.default_rng(0).permutation(120)
    shuffled = PhotoFeatures(
        train.values[order], train.labels[order], [train.digests[row] for row in order]
    )
    new = features_of(50, 6)
    found = [
        fit_detector(answers_of(photos, val, folds=False), photos, val, refit=False)
        for photos in (train, train, shuffled)
    ]
    first, again, other = (one.detector.score(new.values, logits_of(new)) for one in found)
    assert np.array_equal(first, again)
    assert np.allclose(first, other, atol=0.05)


def test_bundles_lose_nothing_by_half_the_bytes(fitted):
    for name in ("projection", "centres"):
        values = getattr(fitted.detector, name)
        assert np.array_equal(values, values.astype(np.float16).astype(np.float32))
    assert fitted.held_out.embedding.shape == (
        len(fitted.held_out.labels),
        fitted.detector.projection.shape[1],
    )


def test_too_few_photos_to_tell_are_counted():
    train, val = features_of(12, 1), features_of(FEWEST_PHOTOS - 1, 2)
    with pytest.raises(
        TrainingError, match=rf"{FEWEST_PHOTOS} photos .* there are 18, .* Add photos"
    ):
        fit_detector(answers_of(train, val, folds=False), train, val, refit=False)


def test_photos_that_do_not_differ_give_no_detector():
    train, val = features_of(30, 1), features_of(30, 2)
    train, val = (replace(some, values=np.ones_like(some.values)) for some in (train, val))
    with pytest.raises(TrainingError, match="no difference"):
        fit_detector(answers_of(train, val, folds=True), train, val, refit=True)


@pytest.mark.parametrize("counts", [(1, 2, 6), (1, 1, 1), (40, 1, 1)])
def test_few_photos_of_a_class_are_enough_for_a_bank(counts):
    labels = np.repeat(np.arange(3), counts)
    units = unit_length(np.random.default_rng(0).normal(size=(len(labels), 9)).astype(np.float32))
    moments = Moments.of(units)
    bank = Bank.build(units, labels, moments, moments.directions())
    assert set(bank.classes) == {0, 1, 2}
    assert len(bank.centres) == sum(min(8, -(-count // 4)) for count in counts)
    assert np.isfinite(bank.class_distances(units, 3)).all()


def test_the_centres_of_a_class_are_those_of_k_means():
    """As SciPy computes them, from the same start and in as many rounds."""
    photos = features_of(300, 1)
    units = unit_length(photos.values)
    moments = Moments.of(units)
    bank = Bank.build(units, photos.labels, moments, moments.directions())
    for label in range(CLASSES):
        embedding = (units[photos.labels == label] - bank.mean) @ bank.projection
        ranked = embedding[np.argsort(embedding[:, 0])]
        start = ranked[(np.arange(8) * 2 + 1) * len(ranked) // 16]
        expected, _ = kmeans2(embedding, start, iter=10, minit="matrix")
        np.testing.assert_allclose(bank.centres[bank.classes == label], expected, atol=2e-3)


def test_entropy_is_highest_where_all_classes_are_equal():
    found = entropy(np.array([[0, 0, 0, 0], [50, 0, 0, 0]], np.float32))
    assert found == pytest.approx([np.log(4), 0], abs=1e-6)
