"""Activations are computed once for each view, and batches are made of them."""

from __future__ import annotations

import numpy as np
import torch

from edgetl.system.progress import no_progress
from edgetl.training.input import activations
from edgetl.training.input.activations import keep_activations
from edgetl.training.input.loader import Batch
from edgetl.training.input.sampler import Sampler

LABELS = np.arange(5) % 2


class Numbered:
    """A loader whose photo ``i`` in epoch ``e`` is the number 10 e + i."""

    def __init__(self) -> None:
        self.seen = 0

    def batches(self, shards):
        for shard in shards:
            self.seen += len(shard.indices)
            numbers = torch.from_numpy(10 * shard.epoch + shard.indices).float()
            assert (shard.positions == shard.indices).all()  # each photo has its own numbers
            yield Batch(numbers[:, None], torch.from_numpy(LABELS[shard.indices]), shard)


def keep(loader, tmp_path, lower=lambda images: images / 2, where="memory", progress=no_progress):
    return keep_activations(loader, lower, LABELS, (3, 1), where, tmp_path, progress)


def test_each_photo_is_seen_in_one_view_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "_BATCH", 2)
    plain, progress = Numbered(), []
    loader = keep(plain, tmp_path, progress=lambda *now: progress.append(now))
    assert plain.seen == 15 and progress[-1] == ("Computing activations", 15, 15)
    views: dict[int, list[float]] = {}
    for batch in loader.batches(Sampler(LABELS, 2, seed=0).shards(0, 4)):
        assert batch.images.dtype == torch.float32
        assert batch.labels.tolist() == LABELS[batch.shard.indices].tolist()
        for photo, value in zip(batch.shard.indices.tolist(), batch.images[:, 0], strict=True):
            views.setdefault(photo, []).append(2 * float(value) - photo)
    assert plain.seen == 15  # nothing is computed again
    assert all(sorted(seen[:3]) == [0, 10, 20] and seen[3] == seen[0] for seen in views.values())
    assert {seen[0] for seen in views.values()} == {0, 10, 20}  # not all in the same view


def test_without_room_or_with_too_large_values_nothing_is_kept(tmp_path, monkeypatch):
    assert keep(Numbered(), tmp_path, lambda images: images * 1e4) is None
    assert keep(Numbered(), tmp_path, lambda images: images * 1e3) is not None
    monkeypatch.setattr("edgetl.training.input.photo_storage.available_memory", lambda: 10)
    assert keep(Numbered(), tmp_path) is None
    monkeypatch.setattr("edgetl.training.input.photo_storage.free_bytes", lambda folder: 10)
    assert keep(Numbered(), tmp_path, where="auto") is None
