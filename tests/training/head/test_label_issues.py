"""Labels that are more likely wrong than right, from the logits of a classifier."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgetl.training.head.label_issues import find_label_issues
from edgetl.training.head.temperature import fit_temperature


def answers(
    classes: int, photos: int = 2000, *, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits, and labels drawn from the probabilities that they mean: a calibrated classifier."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (photos, classes)).astype(np.float32)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return logits, labels


def with_errors(
    labels: NDArray[np.int64], classes: int, share: float, seed: int = 1
) -> tuple[NDArray[np.int64], set[int]]:
    """Labels of which some are replaced by any other class, and the rows of these."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(labels), round(share * len(labels)), replace=False)
    given = labels.copy()
    given[wrong] = (given[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return given, set(wrong.tolist())


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_about_as_many_photos_are_listed_as_labels_are_wrong(classes: int, share: float) -> None:
    logits, labels = answers(classes)
    given, wrong = with_errors(labels, classes, share)
    calibrated = logits / np.float32(fit_temperature(logits, given))
    issues = find_label_issues(calibrated, given, np.arange(len(given)))
    listed = [issue.photo for issue in issues]
    found = len(wrong.intersection(listed))
    assert found > 0.5 * len(wrong) and found > 0.75 * len(listed)
    # What the probabilities promise.
    assert np.mean([issue.label_error for issue in issues]) == pytest.approx(
        found / len(listed), abs=0.1
    )


def test_the_likeliest_error_comes_first_and_names_the_prediction() -> None:
    logits, labels = answers(5)
    given, wrong = with_errors(labels, 5, 0.05)
    issues = find_label_issues(logits, given, np.arange(len(given)) + 10_000)
    errors = [issue.label_error for issue in issues]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0.5 and errors[0] <= 1
    assert {issue.photo - 10_000 for issue in issues[: len(wrong) // 3]} <= wrong
    for issue in issues:
        row = issue.photo - 10_000
        assert issue.predicted == logits[row].argmax() != given[row]
        assert 0.2 < issue.confidence <= 1


@pytest.mark.parametrize("classes", [2, 30])
def test_mistakes_of_a_calibrated_classifier_are_no_label_issues(classes: int) -> None:
    logits, labels = answers(classes)
    assert (logits.argmax(1) != labels).sum() > 100
    assert len(find_label_issues(logits, labels, np.arange(len(labels)))) <= 2


def test_a_class_without_photos_and_certain_answers_do_no_harm() -> None:
    labels = np.arange(100) % 3
    logits = np.full((100, 4), -1e4, np.float32)
    logits[np.arange(100), labels] = 1e4
    assert find_label_issues(logits, labels, np.arange(100)) == ()
    given = labels.copy()
    given[7] = (given[7] + 1) % 3
    (issue,) = find_label_issues(logits, given, np.arange(100))
    assert issue == (7, labels[7], 1.0, 1.0)


def test_guesses_accuse_no_label() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 200)
    assert find_label_issues(np.zeros((200, 4), np.float32), labels, np.arange(200)) == ()
    assert find_label_issues(np.zeros((1, 2), np.float32), labels[:1] % 2, np.arange(1)) == ()
