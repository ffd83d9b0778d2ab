"""A mark on the photos of one class is found where it is, and nothing is found without one."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.training.evaluation.edge_evidence import MIN_PHOTOS, edge_evidence, photos_to_explain


def maps(classes: int, photos: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Evidence around a place near the middle, another in each photo."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:8, :8]
    centres = rng.normal(3.5, 1, (classes * photos, 2, 1, 1))
    found = np.exp(-((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2) / 4)
    found += rng.normal(0, 0.1, found.shape)
    return found.astype(np.float32), np.repeat(np.arange(classes), photos)


@pytest.mark.parametrize(
    ("rows", "columns", "place"),
    [
        (slice(0, 1), slice(0, 1), "top left"),
        (slice(7, 8), slice(7, 8), "bottom right"),
        (slice(7, 8), slice(2, 6), "bottom"),
        (slice(3, 5), slice(0, 2), "left"),
    ],
)
def test_a_mark_is_found_where_it_is(rows, columns, place):
    found, targets = maps(3, 8)
    found[targets == 1, rows, columns] += 10 / found[0, rows, columns].size
    (marked,) = edge_evidence(found, targets)
    assert (marked.label, marked.place) == (1, place)
    assert marked.share > 0.3 > 0.1 > marked.others


def test_a_mark_on_all_photos_is_none():
    found, targets = maps(3, 8)
    found[:, 0, 0] += 10
    assert list(edge_evidence(found, targets)) == []


def test_false_alarms_are_rare():
    alarms = sum(bool(list(edge_evidence(*maps(4, 8, seed)))) for seed in range(100))
    assert alarms <= 2


def test_evidence_that_is_nowhere_above_zero_is_at_no_edge():
    found, targets = maps(2, 8)
    assert list(edge_evidence(-np.abs(found), targets)) == []
    found[targets == 0] = -1
    found[targets == 1, 0, 0] += 10
    (marked,) = edge_evidence(found, targets)
    assert (marked.label, marked.place) == (1, "top left")


def test_some_photos_of_the_surest_classes_are_explained():
    targets = np.repeat(np.arange(14), 20)
    probabilities = np.full((280, 14), 0.01, np.float32)
    probabilities[np.arange(280), targets] = 0.3 + 0.05 * targets
    rows = photos_to_explain(probabilities, targets)
    assert set(targets[rows]) == set(range(4, 14))
    assert len(rows) == len(set(rows)) == 10 * MIN_PHOTOS


def test_few_photos_show_nothing():
    targets = np.repeat(np.arange(2), MIN_PHOTOS - 1)
    assert photos_to_explain(np.eye(2, dtype=np.float32)[targets], targets) == []
