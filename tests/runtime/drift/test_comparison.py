"""Today's photos against held-out ones: what raises an alarm, how often, and what does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.drifting_answers import answers, held_out
from scipy.stats import binom, chi2_contingency, ks_2samp

from edgetl.runtime.drift import permutation_test
from edgetl.runtime.drift.comparison import compare
from edgetl.runtime.drift.photo_answers import PhotoAnswers


def test_photos_of_the_same_kind_are_no_drift():
    found = compare(held_out([60, 60]), answers([40, 40]), 1.0)
    assert found.p_value > 0.05 and found.mix_p_value > 0.05
    assert set(found.p_values) == {"embedding", "ood_score", "confidence"}
    assert found.near_copies == 0 and len(found.compared) == 80


def test_five_percent_of_false_alarms_are_five_percent(monkeypatch):
    monkeypatch.setattr(permutation_test, "PERMUTATIONS", 199)  # of 99, too few p-values differ
    draws = [
        compare(held_out([20, 15, 9], seed), answers([12, 6, 7], 10_000 + seed), 1.0)
        for seed in range(1000)
    ]
    low, high = binom.ppf([0.0005, 0.9995], len(draws), 0.05)
    assert low <= sum(draw.p_value <= 0.05 for draw in draws) <= high
    assert low <= sum(draw.p_values["embedding"] <= 0.05 for draw in draws) <= high


def test_a_shift_is_noticed_and_said_to_be_of_all_photos():
    found = compare(held_out([60, 60]), answers([40, 40], shift=1.0), 1.0)
    assert found.p_value <= 0.01 and found.mix_p_value > 0.05
    assert found.parts.sum() == pytest.approx(1)
    assert (found.parts > 0).mean() > 0.9


def test_the_photos_that_moved_make_the_difference():
    same, moved = answers([40, 0], 1), answers([0, 40], 2, shift=1.5)
    both = PhotoAnswers(
        same.names + moved.names,
        *(
            np.concatenate([getattr(same, name), getattr(moved, name)])
            for name in ("probabilities", "embedding", "ood_score", "is_unknown")
        ),
        {},
    )
    found = compare(held_out([60, 60]), both, 1.0)
    assert found.p_value <= 0.01
    assert found.parts[40:].sum() > 0.8


def test_rounding_of_a_runtime_is_no_drift():
    sure = np.tile(np.array([50, 0], np.float32), (100, 1))
    known = replace(held_out([100, 0]), logits=sure)
    today = answers([60, 0])
    shares = np.tile(np.array([1 - 2e-6, 2e-6], np.float32), (60, 1))
    found = compare(known, replace(today, probabilities=shares), 1.0)
    assert found.p_values["confidence"] == 1


def test_another_mix_of_classes_is_named_and_is_no_drift():
    found = compare(held_out([60, 60]), answers([75, 5]), 1.0)
    assert found.mix_p_value <= 0.01 and found.p_value > 0.05


def test_the_same_photo_over_and_over_counts_once():
    several = answers([3, 3])
    frames = PhotoAnswers(
        several.names * 20,
        np.tile(several.probabilities, (20, 1)),
        np.tile(several.embedding, (20, 1))
        + np.random.default_rng(0).normal(0, 0.05, (120, 24)).astype(np.float32),
        np.tile(several.ood_score, 20),
        np.tile(several.is_unknown, 20),
        {},
    )
    found = compare(held_out([60, 60]), frames, 1.0)
    assert found.compared.tolist() == list(range(6)) and found.near_copies == 114


def test_a_covered_lens_is_noticed_though_all_photos_are_the_same():
    one = answers([1, 0], shift=6.0)
    black = PhotoAnswers(
        one.names * 50,
        np.tile(one.probabilities, (50, 1)),
        np.tile(one.embedding, (50, 1)),
        np.tile(one.ood_score, 50),
        np.tile(one.is_unknown, 50),
        {},
    )
    assert compare(held_out([60, 60]), black, 1.0).p_value <= 0.05


def test_the_same_photos_give_the_same_figures():
    first, second = (compare(held_out([30, 30]), answers([20, 20]), 1.0) for _ in range(2))
    assert (first.p_value, first.mix_p_value) == (second.p_value, second.mix_p_value)
    assert first.parts.tobytes() == second.parts.tobytes()


def test_of_many_photos_a_thousand_are_compared_evenly_spread(monkeypatch):
    monkeypatch.setattr(permutation_test, "PERMUTATIONS", 19)
    found = compare(held_out([60, 60]), answers([1500, 1500]), 1.0)
    assert len(found.compared) + found.near_copies == 1000
    assert found.compared[0] == 0 and found.compared[-1] == 2999


@pytest.mark.parametrize("counts", [[1, 1], [1, 0], [0, 3]])
def test_a_photo_or_two_can_be_compared(counts):
    found = compare(held_out([30, 2]), answers(counts), 1.0)
    assert 0 < found.p_value <= 1 and np.isfinite(found.parts).all()


def test_rare_classes_are_one_stratum():
    first, second = permutation_test.strata(
        np.repeat([0, 1, 2, 3], [1, 20, 2, 3]), np.array([0, 1, 2, 3, 4])
    )
    assert len({*second[[0, 2, 3, 4]]}) == 1 and second[1] != second[0]
    assert (np.bincount(first) >= 5).all()


def test_the_largest_rise_is_that_of_kolmogorov_and_smirnov():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 9, 40), rng.integers(2, 12, 25)
    weights = permutation_test.deal_out(np.zeros(40, int), np.zeros(25, int), rng)
    values = np.concatenate([one, other]).astype(np.float32)
    for sign, side in ((1, "greater"), (-1, "less")):
        rise = permutation_test.largest_rise(weights, sign * values)
        assert rise[0] == pytest.approx(ks_2samp(one, other, alternative=side).statistic, abs=1e-6)


def test_a_model_that_is_surer_than_those_that_judged_it_is_no_drift():
    known, today = held_out([60, 60]), answers([40, 40])
    surer = today.probabilities**3
    today = replace(
        today,
        probabilities=surer / surer.sum(1, keepdims=True),
        ood_score=today.ood_score - 1,
    )
    found = compare(known, today, 1.0)
    assert found.p_values["confidence"] > 0.5 and found.p_values["ood_score"] > 0.5


def test_the_mean_shift_is_that_of_each_stratum_by_its_photos():
    rng = np.random.default_rng(0)
    first, second = np.repeat([0, 1], [30, 10]), np.repeat([0, 1], [5, 15])
    old, new = rng.normal(0, 1, (40, 3)), rng.normal(1, 1, (20, 3))
    weights = permutation_test.deal_out(first, second, rng)
    shifts = permutation_test.mean_shift(weights, np.concatenate([old, new]).astype(np.float32))
    expected = sum(
        share * (new[second == one].mean(0) - old[first == one].mean(0))
        for one, share in ((0, 0.25), (1, 0.75))
    )
    assert shifts[0] == pytest.approx((expected**2).sum(), rel=1e-5)
    ones = weights == weights.max()  # the number of photos of each stratum never changes
    assert (ones[:, np.concatenate([first, second]) == 0].sum(1) == 5).all()
    assert (ones.sum(1) == 20).all()


def test_the_mix_of_classes_is_tested_by_chi_squared():
    first, second = np.repeat([0, 1, 2], [50, 30, 20]), np.repeat([0, 1, 2], [20, 25, 15])
    counts = np.stack([np.bincount(first), np.bincount(second)])
    p = permutation_test.class_mix(first, second, np.random.default_rng(0))
    assert p == pytest.approx(chi2_contingency(counts).pvalue, abs=0.04)
