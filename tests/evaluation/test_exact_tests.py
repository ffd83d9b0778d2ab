"""Binomial and hypergeometric probabilities and intervals, beside scipy's."""

from __future__ import annotations

import pytest
from scipy import stats

from edgetl.evaluation.exact_tests import binomial_tail, clopper_pearson, hypergeometric_tail


@pytest.mark.parametrize("photos", [1, 7, 300, 20_000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.4, 0.99, 1.0])
def test_binomial_tails_are_those_of_scipy(photos: int, share: float) -> None:
    for most in {0, photos // 2, photos - 1, photos}:
        expected = stats.binom.cdf(most, photos, share)
        assert binomial_tail(most, photos, share) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("drawn", "marked", "photos"), [(5, 5, 5), (30, 60, 100), (80, 70, 100)])
def test_hypergeometric_tails_are_those_of_scipy(drawn: int, marked: int, photos: int) -> None:
    for most in range(-1, drawn + 1):
        expected = stats.hypergeom.cdf(most, photos, marked, drawn)
        found = hypergeometric_tail(most, drawn, marked, photos)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("count", "photos"), [(0, 1), (1, 1), (3, 20), (298, 299), (9_900, 10_000)]
)
def test_intervals_are_those_of_scipy(count: int, photos: int) -> None:
    for confidence in (0.9, 0.95):
        expected = stats.binomtest(count, photos).proportion_ci(confidence, "exact")
        found = clopper_pearson(count, photos, confidence)
        assert found == pytest.approx((expected.low, expected.high), abs=1e-8)
