"""Held-out answers: one for each photo that fitted nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.training.head.held_out_answers import HeldOutAnswers
from edgetl.training.head.linear_head import fit_head


def folders_of(train: str, val: str) -> ImageFolders:
    """One photo for each letter, which is its content; its class is whether that is a capital."""
    parts = (
        tuple(
            Sample(Path(f"{index}"), int(name.isupper()), name) for index, name in enumerate(part)
        )
        for part in (train, val)
    )
    return ImageFolders(Path("/"), ("small", "capital"), *parts)


def test_validation_photos_that_are_among_the_training_photos_are_not_held_out():
    logits = np.arange(10, dtype=np.float32).reshape(5, 2)
    found = HeldOutAnswers.collect(folders_of("abABx", "xcCcD"), logits, None)
    assert found.train.size == 0
    assert sorted(found.val) == [2, 3, 4]  # c once, as its copy gives the same answer
    assert np.array_equal(found.logits, logits[found.val])
    assert np.array_equal(found.labels, [1, 1, 0])
    assert found.unscored().ood_score.size == 0


def test_cross_validation_adds_the_photos_that_it_judged():
    folders = folders_of("abcdefABCDEFaB", "xX")
    generator = np.random.default_rng(0)
    labels = np.array([sample.label for sample in folders.train])
    features = (generator.normal(size=(14, 5)) + labels[:, None]).astype(np.float32)
    digests = [sample.digest for sample in folders.train]
    judged = fit_head(features, labels, 2, digests=digests).cross_validation
    found = HeldOutAnswers.collect(folders, np.zeros((2, 2), np.float32), judged)
    assert {digests[row] for row in found.train} == set("abcdefABCDEF")
    assert len(found.train) == 12
    assert sorted(found.val) == [0, 1]
    assert np.array_equal(found.labels[:12], labels[found.train])
    for row, answer in zip(found.train, found.logits, strict=False):
        (place,) = np.flatnonzero(judged.photos == row)
        assert np.array_equal(judged.logits[place], answer)


def test_of_many_classes_fewer_photos_are_kept(monkeypatch):
    monkeypatch.setattr("edgetl.training.head.held_out_answers._MOST_LOGITS", 7)
    found = HeldOutAnswers.collect(folders_of("a", "xcCfD"), np.zeros((5, 2), np.float32), None)
    assert len(found.val) == len(found.logits) == 3
