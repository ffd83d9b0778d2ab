"""The order of the photos in each epoch, cut into batches; it depends only on the seed.

Any batch of a run can be computed without the ones before it, so an interrupted run goes on with
the photos that would have come next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgetl.training.torch_env.randomness import ORDER, numpy_generator


@dataclass(frozen=True)
class BatchShard:
    """The part of one batch that one process works on.

    epoch, batch  where in the run; both count from 0
    positions     int64 [n]: positions in the epoch's order, which determine the augmentation
    indices       int64 [n]: indices into the training photos
    borrowed      how many photos at the front belong to another process's shard, and are here only
                  to be mixed into the photo after them (see ``Mixing``)
    """

    epoch: int
    batch: int
    positions: NDArray[np.int64]
    indices: NDArray[np.int64]
    borrowed: int = 0


class Sampler:
    """Shuffles the photos, cuts them into batches, and splits each batch between the processes.

    labels      int64 [N]: the training photos' classes
    batch_size  photos in a batch, over all processes
    seed        of the order, together with the epoch's number
    accumulate  batches in an optimizer step
    balanced    draw with replacement, so that each class is equally frequent
    processes   how many each batch is split between
    mixed       photos are mixed with the one before them, whichever process has that
    min_per_process  photos of a batch that each process needs: batch norm can't measure one

    A last batch with fewer photos than that is left out.
    """

    def __init__(
        self,
        labels: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        accumulate: int = 1,
        balanced: bool = False,
        processes: int = 1,
        mixed: bool = False,
        min_per_process: int = 1,
    ) -> None:
        self.labels = np.asarray(labels, np.int64)
        self._batch_size, self._accumulate = batch_size, accumulate
        self._seed = seed
        self._balanced = balanced
        self._processes = processes
        self._borrowed = int(mixed and processes > 1)
        full, rest = divmod(len(labels), batch_size)
        self.batches = full + (rest >= min_per_process * processes) or 1
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def _draw_order(self, epoch: int) -> NDArray[np.int64]:
        generator = numpy_generator(self._seed, ORDER, epoch)
        if not self._balanced:
            return generator.permutation(len(self.labels))
        weights = 1.0 / np.bincount(self.labels)[self.labels]
        return generator.choice(len(self.labels), len(self.labels), p=weights / weights.sum())

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch; the last one may have fewer batches."""
        return -(-self.batches // self._accumulate)

    def photos(self, step: int) -> int:
        """How many photos the first ``step`` steps of an epoch see, over all processes."""
        return min(self._batches_before(step) * self._batch_size, len(self.labels))

    def of_step(self, step: int) -> tuple[int, int]:
        """(number of batches, number of photos over all processes) of one step."""
        batches = self._batches_before(step + 1) - self._batches_before(step)
        return batches, self.photos(step + 1) - self.photos(step)

    def _batches_before(self, step: int) -> int:
        return min(step * self._accumulate, self.batches)

    def whole(self, epoch: int, batch: int) -> NDArray[np.int64]:
        """int64 [n]: the indices of one batch, over all processes."""
        start = batch * self._batch_size
        return self._order(epoch)[start : start + self._batch_size]

    def shard(self, epoch: int, batch: int, rank: int) -> BatchShard:
        """The part of a batch that process ``rank`` works on."""
        start, indices = batch * self._batch_size, self.whole(epoch, batch)
        mine = np.array_split(np.arange(len(indices)), self._processes)[rank]
        if self._borrowed:
            mine = np.concatenate([mine[:1] - 1, mine]) % len(indices)
        return BatchShard(epoch, batch, start + mine, indices[mine], self._borrowed)

    def shards(
        self, rank: int, epochs: int, *, epoch: int = 0, batch: int = 0
    ) -> Iterator[BatchShard]:
        """All shards of process ``rank`` up to epoch ``epochs``, from ``batch`` of ``epoch`` on."""
        for current in range(epoch, epochs):
            for number in range(batch if current == epoch else 0, self.batches):
                yield self.shard(current, number, rank)
