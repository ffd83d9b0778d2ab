"""Which photos a run's result was not fitted to, and what it answers for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetl.data.image_folder import ImageFolders
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.training.head.cross_validation import CVResult

_MOST_PHOTOS = 20_000  # more would narrow no interval that a user notices
_MOST_LOGITS = 10_000_000  # 40 MB of a checkpoint: 2,000 photos of 5,000 classes


@dataclass(frozen=True, eq=False)
class HeldOutAnswers:
    """Answers of heads or networks for photos that they were not fitted to; copies counted once.

    train   int64 [T], rows of ``folders.train``
    val     int64 [V], rows of ``folders.val``
    labels  int32 [T + V], the true classes, of the training photos first
    logits  float32 [T + V, classes]
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    labels: NDArray[np.int32]
    logits: NDArray[np.float32]

    @classmethod
    def collect(
        cls,
        folders: ImageFolders,
        val_logits: NDArray[np.float32],
        cross_validation: CVResult | None,
    ) -> HeldOutAnswers:
        """Of the validation photos, and of the training photos that cross-validation has judged.

        val_logits        float32 [N, classes] of the validation photos, before any refit
        cross_validation  of a head that is all that was trained; else None
        """
        judged = () if cross_validation is None else cross_validation.photos.tolist()
        train = {folders.train[photo].digest: row for row, photo in enumerate(judged)}
        trained_on = {sample.digest for sample in folders.train}
        val = {sample.digest: row for row, sample in enumerate(folders.val)}
        val = {digest: row for digest, row in val.items() if digest not in trained_on}
        # Digests are as good as random.
        most = min(_MOST_PHOTOS, _MOST_LOGITS // len(folders.classes))
        chosen = sorted(train.keys() | val.keys())[:most]
        rows = np.array([train[digest] for digest in chosen if digest in train], np.int64)
        val_rows = np.array([val[digest] for digest in chosen if digest in val], np.int64)
        photos, logits = rows, val_logits[val_rows]
        if cross_validation is not None:
            photos = cross_validation.photos[rows]
            logits = np.concatenate([cross_validation.logits[rows], logits])
        samples = [folders.train[row] for row in photos] + [folders.val[row] for row in val_rows]
        labels = np.array([sample.label for sample in samples], np.int32)
        return cls(photos, val_rows, labels, logits.astype(np.float32))

    def of_val(self, chosen: Sequence[int]) -> HeldOutAnswers:
        """Some of them, of answers for validation photos alone; ``val`` counts these from 0."""
        rows = list(chosen)
        return HeldOutAnswers(
            self.train, np.arange(len(rows)), self.labels[rows], self.logits[rows]
        )

    def pick(self, train: NDArray[np.float32], val: NDArray[np.float32]) -> NDArray[np.float32]:
        """Their rows of float32 [N, …] arrays of all training and of all validation photos."""
        return np.concatenate([train[self.train], val[self.val]])

    def unscored(self) -> HeldOut:
        """As they are kept where nothing tells known photos from unknown ones."""
        nothing = np.empty((0, 0), np.float16), np.empty(0, np.float32)
        return HeldOut(self.labels, self.logits, *nothing)
