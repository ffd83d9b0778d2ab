"""The interval of a share that was measured on some photos."""

from __future__ import annotations

from statistics import NormalDist

CONFIDENCE = 0.95


def wilson_interval(count: int, photos: int) -> tuple[float, float]:
    """Wilson's interval of a share, at CONFIDENCE."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, spread = count / photos, z * z / photos
    middle = share + spread / 2
    reach = (spread * (share * (1 - share) + spread / 4)) ** 0.5
    low, high = ((middle + sign * reach) / (1 + spread) for sign in (-1, 1))
    # At the ends of 0..1, the interval ends there but for rounding.
    return (low if count else 0.0), (high if count < photos else 1.0)
