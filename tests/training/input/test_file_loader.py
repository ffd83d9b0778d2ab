"""Photos decoded by worker processes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.input import file_loader
from edgetl.training.input.decoded_photos import TrainingDecoder

SPEC = PreprocessSpec("shorter_side", 40, "bilinear", (32, 32), (0.5,) * 3, (0.5,) * 3)


def test_the_dataset_can_be_pickled_for_workers_that_are_not_forked(photos):
    given = file_loader.PhotoDataset(photos, TrainingDecoder(SPEC, (64, 64)))
    there = pickle.loads(pickle.dumps(given))
    assert np.array_equal(there[3][0], given[3][0]) and there[3][1] == 1.5
    assert "5.jpg" in there[5]


@pytest.mark.parametrize(
    ("room", "kind"), [(1 << 30, torch.Tensor), (100, np.ndarray), (0, np.ndarray)]
)
def test_workers_return_pixels_in_shared_memory_where_there_is_room(monkeypatch, room, kind):
    monkeypatch.setattr(file_loader, "free_bytes", lambda folder: room)
    photos = [(np.full((4, 4, 3), value, np.uint8), 0.5 + value) for value in range(2)]
    pixels, aspects = file_loader.collate(photos)
    assert isinstance(pixels, kind) and aspects.tolist() == [0.5, 1.5]
    assert np.array_equal(np.asarray(pixels), np.stack([pixels for pixels, _ in photos]))
