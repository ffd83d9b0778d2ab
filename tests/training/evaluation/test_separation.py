"""How well scores separate unknown photos from known ones."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgetl.training.evaluation.separation import KEPT_SHARES, separate


def test_auroc_is_that_of_scikit_learn_with_ties():
    generator = np.random.default_rng(0)
    known, unknown = (
        generator.normal(mean, 1, count).round(1).astype(np.float32)
        for mean, count in ((0, 200), (1, 80))
    )
    found = separate([(known, unknown)])
    labels = np.repeat([0, 1], [200, 80])
    assert found.auroc == pytest.approx(roc_auc_score(labels, np.concatenate([known, unknown])))
    assert found.interval[0] < found.auroc < found.interval[1]
    assert (found.photos, found.known) == (80, 200)
    limit = np.sort(known)[np.ceil(0.95 * 199).astype(int)]
    assert found.let_in == pytest.approx((unknown <= limit).mean())


def test_the_curve_rises_from_few_to_all():
    generator = np.random.default_rng(1)
    pairs = [
        (generator.normal(0, 1, 50).astype(np.float32), generator.normal(1, 1, 50).astype("f4"))
        for _ in range(3)
    ]
    found = separate(pairs)
    assert len(found.curve) == len(KEPT_SHARES)
    assert all(np.diff(found.curve) >= 0)
    assert found.curve[95] == pytest.approx(found.let_in)


def test_all_told_apart_is_still_uncertain_and_a_handful_says_nothing():
    known, unknown = np.arange(20, dtype=np.float32), np.arange(100, 110, dtype=np.float32)
    found = separate([(known, unknown)])
    assert (found.auroc, found.let_in) == (1.0, 0.0)
    assert found.interval[0] < 0.75
    assert separate([(known, unknown[:4])]) is None
    assert separate([]) is None
