"""Which photo comes when: the order of every epoch, cut into batches, known without having run the epochs before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgetl.training.torch_env.randomness import ORDER, numpy_generator


@dataclass(frozen=True)
class Share:
    """One process's part of one batch.

    epoch, batch  where in the run; both count from 0
    positions     int64 [n]: places in the epoch's order; what is random about a photo is drawn by its place
    photos        int64 [n]: indices into the training photos
    borrowed      how many photos at the front are another process's, here only to be mixed into the next one
    """

    epoch: int
    batch: int
    positions: NDArray[np.int64]
    photos: NDArray[np.int64]
    borrowed: int = 0


class Sampler:
    """Shuffles, cuts into batches, and deals each batch out to the processes.

    labels      int64 [N]: the training photos' classes
    batch_size  photos in a batch, over all processes
    seed        of the order, with the epoch's number
    processes   how many each batch is dealt out to
    accumulate  batches in an optimizer step
    balanced    draw with replacement, so that each class comes equally often
    mixed       photos are mixed with the one before them in the batch, whichever process has it
    least       photos that each process needs: 2 where one process measures them for batch norm, which can't measure one

    A last batch with fewer is left out.
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
        least: int = 1,
    ) -> None:
        self.labels = np.asarray(labels, np.int64)
        self._batch_size, self._accumulate = batch_size, accumulate
        self._seed = seed
        self._balanced = balanced
        self._processes = processes
        self._borrowed = int(mixed and processes > 1)
        whole, rest = divmod(len(labels), batch_size)
        self.batches = whole + (rest >= least * processes) or 1
        self._order = lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        generator = numpy_generator(self._seed, ORDER, epoch)
        if not self._balanced:
            return generator.permutation(len(self.labels))
        chance = 1.0 / np.bincount(self.labels)[self.labels]
        return generator.choice(len(self.labels), len(self.labels), p=chance / chance.sum())

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch; the last may be of fewer batches."""
        return -(-self.batches // self._accumulate)

    def photos(self, step: int) -> int:
        """How many photos an epoch's first ``step`` steps see, in all processes."""
        return min(self._begun(step) * self._batch_size, len(self.labels))

    def of_step(self, step: int) -> tuple[int, int]:
        """How many batches, and how many photos in all processes, a step takes."""
        return self._begun(step + 1) - self._begun(step), self.photos(step + 1) - self.photos(step)

    def _begun(self, step: int) -> int:
        """Batches before a step."""
        return min(step * self._accumulate, self.batches)

    def whole(self, epoch: int, batch: int) -> NDArray[np.int64]:
        """int64 [n]: the photos of one batch, over all processes."""
        start = batch * self._batch_size
        return self._order(epoch)[start : start + self._batch_size]

    def share(self, epoch: int, batch: int, rank: int) -> Share:
        """What process ``rank`` works on."""
        start, photos = batch * self._batch_size, self.whole(epoch, batch)
        mine = np.array_split(np.arange(len(photos)), self._processes)[rank]
        if self._borrowed:
            mine = np.concatenate([mine[:1] - 1, mine]) % len(photos)
        return Share(epoch, batch, start + mine, photos[mine], self._borrowed)

    def shares(self, rank: int, epochs: int, *, epoch: int = 0, batch: int = 0) -> Iterator[Share]:
        """The rest of a run of ``epochs`` epochs, from ``batch`` of ``epoch`` on."""
        for later in range(epoch, epochs):
            for number in range(batch if later == epoch else 0, self.batches):
                yield self.share(later, number, rank)
