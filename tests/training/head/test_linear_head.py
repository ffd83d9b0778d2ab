"""The linear head: scikit-learn's solution, with a C that is chosen on held-out photos."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import partial
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn import linear_model
from sklearn.datasets import load_digits

from edgetl.errors import TrainingError
from edgetl.training.head import cross_validation, folds, linear_head
from edgetl.training.head.cross_validation import (
    C_VALUES,
    SHRINKAGES,
    CrossValidation,
    HeadRecipe,
    score_logits,
)
from edgetl.training.head.feature_scaling import FeatureScaling
from edgetl.training.head.folds import rank_photos
from edgetl.training.head.linear_head import Candidate, better_candidate, fit_head, improvement
from edgetl.training.head.logistic_regression import LogisticRegression
from edgetl.training.head.temperature import fit_temperature

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


@pytest.fixture(scope="module")
def digits() -> tuple[Data, Data]:
    """Handwritten digits as features: 300 to train on, 400 to test on, [N, 64], ten classes."""
    values, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[:700]
    values, labels = values[order].astype(np.float32), labels[order].astype(np.int64)
    return (values[:300], labels[:300]), (values[300:], labels[300:])


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(1) == labels).mean())


def blobs(counts: list[int], spread: float, seed: int = 0, width: int = 16) -> Data:
    """Gaussian clouds, ``counts`` points each."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1, (len(counts), width))
    labels = np.repeat(np.arange(len(counts)), counts)
    return (centres[labels] + rng.normal(0, spread, (len(labels), width))).astype(
        np.float32
    ), labels


@pytest.fixture
def to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logistic regressions that are solved as exactly as single precision allows."""
    monkeypatch.setattr("edgetl.training.head.logistic_regression.STEP_TOLERANCE", 1e-8)


@pytest.mark.usefixtures("to_the_end")
@pytest.mark.parametrize(("C", "photos"), [(0.001, 300), (0.1, 300), (0.1, 50)])
def test_it_is_the_solution_of_scikit_learn(
    C: float, photos: int, digits: tuple[Data, Data]
) -> None:
    """Also for fewer photos than features, in the basis of which it is found."""
    (values, labels), (test, _) = digits
    values, labels = values[:photos], labels[:photos]
    head = fit_head(values, labels, 10, recipe=HeadRecipe(C))
    scaling = FeatureScaling.fit(torch.from_numpy(values))
    assert (scaling.basis is None) == (photos >= 64)
    scaled, scaled_test = (
        ((part - scaling.mean.numpy()) / scaling.scale.numpy()).astype(np.float64)
        for part in (values, test)
    )
    reference = linear_model.LogisticRegression(C=C, max_iter=10_000, tol=1e-8)
    expected = reference.fit(scaled, labels).predict_log_proba(scaled_test)
    logits = head.logits(test).astype(np.float64)
    found = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert head.cross_validation is None and head.recipe.C == C


@pytest.mark.usefixtures("to_the_end")
@pytest.mark.parametrize("photos", [300, 50])
def test_it_starts_from_a_head_for_most_of_the_photos(
    photos: int, digits: tuple[Data, Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And finds the same. Also in another basis, of fewer photos than features."""
    (values, labels), _ = digits
    values, labels, recipe = values[:photos], labels[:photos], HeadRecipe(0.1, 1.0, 0.1, 1.0)
    first = fit_head(values[:-30], labels[:-30], 10, recipe=recipe)
    expected = fit_head(values, labels, 10, recipe=recipe)
    found = fit_head(values, labels, 10, recipe=recipe, start=first)
    np.testing.assert_allclose(found.logits(values), expected.logits(values), atol=2e-2)
    monkeypatch.setattr(linear_head, "_MOST_STEPS", 0)
    first, kept = (
        fit_head(values, labels, 10, recipe=HeadRecipe(0.1), start=head)
        for head in (None, expected)
    )
    assert not first.weight.any()
    weight, bias = expected.logistic
    np.testing.assert_allclose(kept.logits(values), values @ weight.T + bias, atol=1e-3)


def test_cross_validation_finds_a_c_near_the_best(digits: tuple[Data, Data]) -> None:
    (values, labels), (test, truth) = digits
    head = fit_head(values, labels, 10)
    best = max(
        accuracy(fit_head(values, labels, 10, recipe=HeadRecipe(C)).logits(test), truth)
        for C in C_VALUES
    )
    assert accuracy(head.logits(test), truth) >= best - 0.01
    scores = head.cross_validation.logistic_scores
    assert min(scores, key=lambda score: score.loss).parameter == head.recipe.C
    tried = [score.parameter for score in scores]
    first = C_VALUES.index(tried[0])
    assert tried == list(C_VALUES[first : first + len(tried)])


def test_wrong_labels_are_found() -> None:
    values, labels = blobs([60, 60, 60], 0.6)
    order = np.random.default_rng(3).permutation(len(labels))
    values, labels = values[order], labels[order]
    wrong = np.random.default_rng(1).choice(len(labels), 8, replace=False)
    given = labels.copy()
    given[wrong] = (given[wrong] + 1) % 3
    issues = fit_head(values, given, 3).label_issues
    assert {issue.photo for issue in issues} == set(wrong.tolist())
    assert all(
        issue.predicted == labels[issue.photo] and 0.5 < issue.confidence <= 1 for issue in issues
    )
    assert fit_head(values, given, 3, recipe=HeadRecipe(0.1)).label_issues == ()


def test_labels_of_photos_outside_cross_validation_are_judged_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folds, "MOST_PHOTOS", 120)
    values, labels = blobs([60, 60, 60], 0.6)
    order = np.random.default_rng(3).permutation(len(labels))
    values, labels = values[order], labels[order]
    wrong = np.random.default_rng(1).choice(len(labels), 12, replace=False)
    given = labels.copy()
    given[wrong] = (given[wrong] + 1) % 3
    issues = fit_head(values, given, 3).label_issues
    found = {issue.photo for issue in issues}
    assert len(found & set(wrong.tolist())) >= 10 and len(found) == len(issues) <= 15


def test_cross_validation_takes_the_same_share_of_each_class_copies_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folds, "MOST_PHOTOS", 100)
    seen = []
    monkeypatch.setattr(
        LogisticRegression, "subset", lambda problem, photos: seen.append(photos) or 1 / 0
    )
    values, labels = blobs([100, 100], 0.6)
    digests = [f"{number:03}" for number in range(100)] + [
        f"copy{number % 10}" for number in range(100)
    ]
    with pytest.raises(ZeroDivisionError):
        fit_head(values, labels, 2, digests=digests)
    assert np.bincount(labels[seen[0].numpy()]).tolist() == [50, 50]


def test_confidence_in_a_label_issue_is_calibrated_on_held_out_photos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is divided by the temperature that was found for them."""
    values, labels = blobs([60, 60, 60], 0.6)
    labels[::20] = (labels[::20] + 1) % 3
    monkeypatch.setattr(cross_validation, "fit_temperature", lambda *_: 50.0)
    issues = fit_head(values, labels, 3).label_issues
    assert issues and all(1 / 3 < issue.confidence < 0.6 for issue in issues)


def test_the_cross_validated_accuracy_holds_on_other_photos(digits: tuple[Data, Data]) -> None:
    (values, labels), (test, truth) = digits
    head = fit_head(values, labels, 10)
    assert abs(head.cross_validation.score.accuracy - accuracy(head.logits(test), truth)) < 0.05


def test_noise_makes_no_head_confident() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(200, 50)).astype(np.float32), rng.integers(0, 4, 200)
    head = fit_head(values, labels, 4)
    fresh = rng.normal(size=(100, 50)).astype(np.float32)
    assert softmax(head.logits(fresh), axis=1).max(1).mean() < 0.45
    assert len(head.cross_validation.logistic_scores) < len(C_VALUES)


@pytest.mark.parametrize(("photos", "shift"), [(20, 2.0), (40, 1.5)])
def test_few_photos_that_are_all_right_make_no_head_overconfident(
    photos: int, shift: float
) -> None:
    """With more features than photos, a discriminant's own logits are thousands."""
    rng = np.random.default_rng(0)
    labels = np.arange(photos + 1000) % 2
    values = rng.normal(size=(len(labels), 300)).astype(np.float32)
    values[:, :20] += shift * labels[:, None]
    head = fit_head(values[:photos], labels[:photos], 2)
    log_probabilities = log_softmax(head.logits(values[photos:]).astype(np.float64), axis=1)
    assert -log_probabilities[np.arange(1000), labels[photos:]].mean() < 0.1


def test_confidence_is_calibrated(digits: tuple[Data, Data]) -> None:
    """The temperature of the chosen C is folded in: on other photos, it is close to 1."""
    (values, labels), (test, truth) = digits
    assert fit_temperature(fit_head(values, labels, 10).logits(test), truth) == pytest.approx(
        1, abs=0.25
    )


def test_copies_of_a_photo_do_not_leak_between_folds() -> None:
    """Noise, every photo ten times: only a classifier that was fitted to copies looks good."""
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(100, 200)).astype(np.float32), rng.integers(0, 2, 100)
    digests = [hashlib.sha256(bytes([photo])).hexdigest() for photo in range(100)]
    tenfold = np.repeat(values, 10, axis=0), np.repeat(labels, 10), list(np.repeat(digests, 10))
    honest = fit_head(*tenfold[:2], 2, digests=tenfold[2])
    fooled = fit_head(*tenfold[:2], 2)
    assert honest.cross_validation.score.accuracy < 0.65
    assert fooled.cross_validation.score.accuracy > 0.9


def test_folds_hold_every_class_and_do_not_depend_on_the_order() -> None:
    labels = np.array([0] * 7 + [1] * 3 + [2])
    digests = [hashlib.sha256(bytes([photo])).hexdigest() for photo in range(11)]
    ranks = rank_photos(labels, digests)
    assert [sorted(ranks[labels == label]) for label in range(3)] == [
        list(range(7)),
        list(range(3)),
        [0],
    ]
    shuffled = np.random.default_rng(1).permutation(11)
    assert list(rank_photos(labels[shuffled], [digests[photo] for photo in shuffled])) == list(
        ranks[shuffled]
    )


def test_class_weights_count_like_copies() -> None:
    values, labels = blobs([40, 8], spread=3.0)
    scaling_fixed = (
        np.concatenate([values, *[values[40:]] * 4]),
        np.concatenate([labels, *[labels[40:]] * 4]),
    )
    weighted = fit_head(values, labels, 2, recipe=HeadRecipe(0.1), class_weights=[1, 5])
    plain = fit_head(values, labels, 2, recipe=HeadRecipe(0.1))
    copied = fit_head(*scaling_fixed, 2, recipe=HeadRecipe(0.1))

    def recall(head: object) -> float:
        return float((head.logits(values)[40:].argmax(1) == 1).mean())  # type: ignore[attr-defined]

    assert recall(weighted) == recall(copied) > recall(plain)


@pytest.mark.parametrize("chosen", ["logistic regression", "a linear discriminant", "the mean"])
def test_the_head_of_the_least_loss_is_taken(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fitted to all photos as it was in cross-validation, with the same temperatures."""
    values, labels = blobs([40, 30, 20], 1.5)
    judge, shrinkages = CrossValidation.judge, (0.85, 0.3, 0.15)  # no C among them

    def judged(heads: CrossValidation, parameter: float, solution: torch.Tensor) -> object:
        trial = judge(heads, parameter, solution)
        kind = "a linear discriminant" if parameter in shrinkages else "logistic regression"
        loss = trial.score.loss * (0.5 if chosen == (kind if parameter else "the mean") else 1)
        return dataclasses.replace(trial, score=dataclasses.replace(trial.score, loss=loss))

    monkeypatch.setattr(cross_validation, "SHRINKAGES", shrinkages)
    monkeypatch.setattr(CrossValidation, "judge", judged)
    head = fit_head(values, labels, 3)
    recipe, found = head.recipe, head.cross_validation
    assert recipe.describe().startswith(chosen)
    assert found is not None and len(found.photos) == len(found.losses) == 90
    loss = -log_softmax(found.logits, axis=1)[np.arange(90), labels[found.photos]]
    np.testing.assert_allclose(loss, found.losses, atol=1e-5)
    parts = [
        (factor, fit_head(values, labels, 3, recipe=part))
        for factor, part in (
            (recipe.logistic, HeadRecipe(recipe.C)),
            (recipe.discriminant, HeadRecipe(recipe.C, 0.0, recipe.shrinkage, 1.0)),
        )
    ]
    expected = sum(factor * part.logits(values) for factor, part in parts)
    again = fit_head(values, labels, 3, recipe=recipe)
    for found_logits in (head.logits(values), again.logits(values)):
        np.testing.assert_allclose(found_logits, expected, atol=2e-2)


def test_where_features_are_normal_the_discriminant_helps() -> None:
    """Clouds of one shape, longest where the classes do not differ: what it assumes."""
    rng = np.random.default_rng(0)
    shape = rng.normal(0, 1, (16, 16)) * np.geomspace(3, 0.1, 16)
    labels = np.arange(400) % 4
    values = (rng.normal(0, 0.3, (4, 16))[labels] + rng.normal(0, 1, (400, 16)) @ shape).astype(
        np.float32
    )
    head = fit_head(values[:120], labels[:120], 4)
    alone = fit_head(values[:120], labels[:120], 4, recipe=HeadRecipe(head.recipe.C))
    assert head.recipe.discriminant > 0
    assert accuracy(head.logits(values[120:]), labels[120:]) > accuracy(
        alone.logits(values[120:]), labels[120:]
    )


@pytest.mark.parametrize("values", [SHRINKAGES, C_VALUES])
def test_parameters_are_tried_downhill(
    values: tuple[float, ...], digits: tuple[Data, Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the loss rises on either side of the best, wherever that is."""
    monkeypatch.setattr(LogisticRegression, "solve", lambda *_: torch.zeros(10, 10, 65))
    (features, labels), _ = digits
    photos = torch.from_numpy(features), torch.from_numpy(labels), torch.ones(len(labels))
    judge, best = CrossValidation.judge, 0

    def judged(heads: CrossValidation, parameter: float, solution: torch.Tensor) -> object:
        trial = judge(heads, parameter, solution)
        loss = abs(values.index(parameter) - best) if parameter in values else 1.0
        return dataclasses.replace(trial, score=dataclasses.replace(trial.score, loss=loss))

    monkeypatch.setattr(CrossValidation, "judge", judged)
    for best in range(len(values)):
        heads = CrossValidation(LogisticRegression(*photos, 10, 64), rank_photos(labels), Event())
        scores = heads.discriminant[1] if values == SHRINKAGES else heads.result.logistic_scores
        tried = [score.parameter for score in scores]
        beside = values[max(best - 1, 0) : best + 2]
        assert set(beside) <= set(tried)
        assert tried == [value for value in values if value in tried]


def test_the_same_input_gives_the_same_bits(digits: tuple[Data, Data]) -> None:
    (values, labels), _ = digits
    first, second = fit_head(values, labels, 10), fit_head(values.copy(), list(labels), 10)
    assert (
        first.weight.tobytes() == second.weight.tobytes()
        and first.bias.tobytes() == second.bias.tobytes()
    )


def test_small_chunks_change_nothing(
    digits: tuple[Data, Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    (values, labels), _ = digits
    fit = partial(fit_head, values, labels, 10, recipe=HeadRecipe(0.01), class_weights=range(1, 11))
    whole = fit().weight
    monkeypatch.setattr("edgetl.training.head.logistic_regression.CHUNK", 1000)
    np.testing.assert_allclose(fit().weight, whole, atol=1e-4)


@pytest.mark.usefixtures("to_the_end")
def test_models_solved_together_are_what_each_would_be_alone() -> None:
    values, labels = blobs([20, 20, 20], spread=2.0)
    photos = torch.from_numpy(values), torch.from_numpy(labels)
    problem = LogisticRegression(*photos, torch.ones(60), 3, 16)
    used = torch.from_numpy(np.arange(60) % 2 == 0)
    both = problem.solve(0.1, None, 200, torch.stack([used, ~used], dim=1))
    for model, photos_used in enumerate((used, ~used)):
        alone = problem.subset(photos_used.nonzero()[:, 0]).solve(0.1, None, 200)
        np.testing.assert_allclose(both[model], alone[0], atol=1e-3)


@pytest.mark.parametrize("counts", [[1, 1], [2, 1], [3, 2, 1], [1, 40]])
def test_a_handful_of_photos_is_enough(counts: list[int]) -> None:
    values, labels = blobs(counts, spread=0.1)
    head = fit_head(values, labels, len(counts))
    assert accuracy(head.logits(values), labels) == 1.0
    assert head.cross_validation is None or np.isfinite(head.cross_validation.losses).all()


@pytest.mark.parametrize(("each", "spread"), [(2, 1.0), (20, 0.0)])
def test_photos_that_hardly_differ_within_classes_leave_the_head_sure(
    each: int, spread: float
) -> None:
    """A discriminant of one photo a class has no spread, and logits of millions."""
    rng = np.random.default_rng(0)
    centres, labels = 4 * rng.normal(size=(30, 64)), np.repeat(np.arange(30), each)
    noise = rng.normal(size=(len(labels), 64))
    head = fit_head((centres[labels] + spread * noise).astype(np.float32), labels, 30)
    others = (centres + rng.normal(size=centres.shape)).astype(np.float32)
    assert np.diag(softmax(head.logits(others), axis=1)).mean() > 0.9
    assert head.recipe.discriminant == 0 and head.cross_validation.shrinkage_scores == ()


def test_constant_and_huge_features_do_no_harm() -> None:
    values, labels = blobs([30, 30], spread=0.5)
    odd = np.concatenate(
        [values, np.zeros((60, 3)), np.full((60, 1), 1e6), values[:, :1] * 1e5], axis=1
    ).astype(np.float32)
    head = fit_head(odd, labels, 2)
    assert np.isfinite(head.weight).all() and accuracy(head.logits(odd), labels) == 1.0


@pytest.mark.parametrize(
    "values", [np.full((4, 3), np.nan, np.float32), np.empty((0, 3), np.float32)]
)
def test_no_photos_and_features_that_are_not_finite_are_errors(values: NDArray[np.float32]) -> None:
    with pytest.raises(TrainingError):
        fit_head(values, np.arange(len(values)) % 2, 2)


def candidate(losses: np.ndarray) -> Candidate:
    found = SimpleNamespace(discriminant=(SimpleNamespace(losses=losses), ()))
    return Candidate(None, None, found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gain", "taken"), [(0.5, False), (0.9, False), (1.1, True), (-2.0, False)]
)
def test_more_features_are_used_if_better_by_more_than_one_standard_error(
    gain: float, taken: bool
) -> None:
    noise = np.random.default_rng(0).normal(size=400)
    noise = (noise - noise.mean()) / noise.std()  # of a standard error of 1 / 20
    simpler, other = candidate(np.ones(400)), candidate(1 - gain / 20 - noise)
    assert (better_candidate(simpler, other) is other) == taken


def test_a_score_weighs_its_photos() -> None:
    logits, labels = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]], np.float32), np.array([0, 1, 1])
    score, losses = score_logits(1.0, logits, labels, np.array([1.0, 1.0, 4.0], np.float32))
    assert score.accuracy == pytest.approx(2 / 6)
    assert score.loss == pytest.approx(losses.mean())
    wrong, right = np.log1p(np.exp(2 / score.temperature)), np.log1p(np.exp(-2 / score.temperature))
    assert losses[2] / losses[0] == pytest.approx(4 * wrong / right, rel=1e-3)


def test_candidates_are_what_each_would_be_alone(digits: tuple[Data, Data]) -> None:
    """Also while they are computed at the same time, whichever is ready first."""
    (values, labels), _ = digits
    few = values[:, :20].copy()
    for widths, alone in (((20, 64), values), ((20, 20), few)):
        head, expected = fit_head(values, labels, 10, widths=widths), fit_head(alone, labels, 10)
        assert np.array_equal(head.weight, expected.weight) and head.recipe == expected.recipe
    assert improvement(values, few, labels, 10) > 1
    assert improvement(few, values, labels, 10) < -1


def test_ctrl_c_waits_for_no_candidate(
    digits: tuple[Data, Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    (values, labels), _ = digits
    waited, begun = [], Event()

    def interrupted(
        problem: LogisticRegression, ranks: NDArray[np.int64], cancelled: Event
    ) -> CrossValidation:
        if problem.values.shape[1] == 20:
            begun.wait(60)
            raise KeyboardInterrupt
        begun.set()
        waited.append(cancelled.wait(60))
        return CrossValidation(problem, ranks, cancelled)

    monkeypatch.setattr(linear_head, "CrossValidation", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_head(values, labels, 10, widths=(20, 64))
    assert waited == [True]


def test_a_cancelled_cross_validation_ends_at_once(digits: tuple[Data, Data]) -> None:
    (values, labels), _ = digits
    cancelled = Event()
    cancelled.set()
    photos = torch.from_numpy(values), torch.from_numpy(labels), torch.ones(len(labels))
    problem = LogisticRegression(*photos, 10, 64)
    heads = CrossValidation(problem, rank_photos(labels), cancelled)
    assert heads.discriminant is None and heads.result is None
