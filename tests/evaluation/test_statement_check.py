"""A true statement is found to hold, one that is not is found out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from helpers.random_answers import random_answers

from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.statement_check import (
    check_statement,
    measure_promises,
    restated,
)
from edgetl.evaluation.sure_threshold import find_threshold
from edgetl.runtime.bundle.abstention import SureAnswers
from edgetl.runtime.bundle.promises import Promises


def promises_of(answers: LabelledAnswers, precision: float = 0.8) -> Promises:
    """With sure answers, if a threshold can be shown."""
    promises = measure_promises(answers, "some photos")
    found = find_threshold(answers, precision).threshold
    if found is None:
        return promises
    rule = SureAnswers(None, precision, 0.95, found)
    return restated(replace(promises, sure_answers=(rule,)), answers)


def test_the_statement_counts_what_it_says() -> None:
    answers = random_answers(600)
    promises = promises_of(answers)
    figures = {(share.figure, share.level): share for share in promises.statement}
    assert set(figures) == {
        ("accuracy", None), ("coverage", 0.9), ("coverage", 0.95), ("answered", None),
        ("precision", 0.8),
    }  # fmt: skip
    accuracy = figures["accuracy", None]
    assert (accuracy.count, accuracy.photos) == (answers.is_right.sum(), 600)
    assert accuracy.interval[0] < accuracy.share < accuracy.interval[1]
    assert figures["coverage", 0.9].share >= 0.9
    sure = answers.confidences >= promises.sure_answers[0].threshold
    assert figures["answered", None].count == figures["precision", 0.8].photos == sure.sum()
    assert figures["precision", 0.8].count == answers.is_right[sure].sum()
    low, high = figures["precision", 0.8].interval
    assert 0.8 <= low < figures["precision", 0.8].share < high == 1  # as was promised


def test_a_label_of_its_own_is_left_out_of_the_others() -> None:
    answers = random_answers(600)
    rules = (SureAnswers(None, 0.8, 0.95, 0.5), SureAnswers("class 1", 0.9, 0.95, 0.7))
    promises = replace(measure_promises(answers, ""), sure_answers=rules)
    shares = {
        share.label: share
        for share in restated(promises, answers).statement
        if share.figure == "answered"
    }
    own = answers.probabilities.argmax(1) == 1
    assert (shares[None].photos, shares["class 1"].photos) == ((~own).sum(), own.sum())
    assert shares["class 1"].count == (own & (answers.confidences >= 0.7)).sum()


def test_other_photos_of_the_same_kind_seldom_raise_a_false_alarm() -> None:
    alarms = 0
    for seed in range(60):
        promises = promises_of(random_answers(200, seed=seed))
        checks = check_statement(promises, random_answers(200, seed=5000 + seed))
        assert len(checks) == len(promises.statement)
        alarms += any(not check.holds for check in checks)
    assert alarms <= 0.05 * 60 + 2 * (0.05 * 0.95 * 60) ** 0.5


def test_worse_answers_are_found_out_and_better_ones_are_not() -> None:
    promises = promises_of(random_answers(600))
    other = random_answers(400, seed=1)
    wrong = other.targets.copy()
    wrong[:120] = (other.probabilities[:120].argmax(1) + 1) % 5
    worse = check_statement(promises, replace(other, targets=wrong))
    assert {check.found.figure for check in worse if not check.holds} >= {"accuracy", "precision"}
    best = replace(other, targets=other.probabilities.argmax(1))
    assert all(check.holds for check in check_statement(promises, best))


def test_without_sure_answers_there_is_no_precision() -> None:
    promises = promises_of(random_answers(600))
    unsure = replace(random_answers(50), probabilities=np.full((50, 5), 0.2, np.float32))
    found = {check.found.figure for check in check_statement(promises, unsure)}
    assert "answered" in found
    assert "precision" not in found
