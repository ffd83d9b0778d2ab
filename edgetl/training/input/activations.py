"""Batches of activations: what the frozen part of a network gives for photos, computed once.

Training the last blocks then costs no more than these blocks. Each photo has a few augmented views,
which the epochs take in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.errors import TrainingError
from edgetl.system.progress import Progress
from edgetl.training.input.loader import Batch, Loader
from edgetl.training.input.photo_storage import allocate
from edgetl.training.input.sampler import BatchShard

MOST_VIEWS = 4  # of each photo
KEPT_TYPE = torch.float16
_BATCH = 64  # fixed: the other photos of a batch change the last bits of an activation


class ActivationLoader:
    """Batches whose images are activations, float32 [n, width]."""

    def __init__(self, views: Tensor, labels: NDArray[np.int64]) -> None:
        """views: ``KEPT_TYPE`` [views, N, width]; labels: int64 [N]."""
        self._views, self._labels = views, torch.from_numpy(labels)

    def batches(self, shards: Iterable[BatchShard]) -> Iterator[Batch]:
        """See ``Loader``. The photos of a batch are not all seen in the same view."""
        for shard in shards:
            rows = torch.from_numpy(shard.indices)
            views = (shard.epoch + rows) % len(self._views)
            yield Batch(self._views[views, rows].float(), self._labels[rows], shard)


def keep_activations(
    loader: Loader,
    lower: Callable[[Tensor], Tensor],
    labels: NDArray[np.int64],
    shape: tuple[int, int],
    where: str,
    folder: Path,
    progress: Progress,
) -> ActivationLoader | None:
    """Compute the activations of every photo; None where there is no room for them.

    loader   of augmented photos; those of its first epochs are the views
    lower    images of a batch → activations, float32 [n, width]
    labels   int64 [N]
    shape    (views, width)
    where    see ``allocate``
    folder   likewise

    Also None if a value is too large for ``KEPT_TYPE``.
    """
    views, width = shape
    room = None
    with suppress(TrainingError):  # decoded photos must fit where they were asked to be; these not
        room = allocate((views, len(labels), width * KEPT_TYPE.itemsize), where, folder)
    if room is None:
        return None
    kept = torch.from_numpy(room).view(KEPT_TYPE)
    done = 0
    with (
        torch.inference_mode(),
        closing(cast("Any", loader.batches(_in_order(views, len(labels))))) as batches,
    ):
        for batch in batches:
            shard = batch.shard
            found = lower(batch.images).to(KEPT_TYPE)
            if not found.isfinite().all():
                return None
            kept[shard.epoch, shard.positions[0] : shard.positions[-1] + 1] = found
            done += len(found)
            progress("Computing activations", done, len(kept) * len(labels))
    return ActivationLoader(kept, labels)


def _in_order(views: int, photos: int) -> Iterator[BatchShard]:
    """Every photo once in each of the first epochs."""
    for view in range(views):
        for number, start in enumerate(range(0, photos, _BATCH)):
            rows = np.arange(start, min(start + _BATCH, photos))
            yield BatchShard(view, number, rows, rows)
