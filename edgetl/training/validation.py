"""The validation photos: decoded once through the exact path, each judged once, over all processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.errors import TrainingError
from edgetl.runtime.spec import PreprocessSpec
from edgetl.training.augment import Normalizer
from edgetl.training.dataset import Sample, find_unreadable
from edgetl.training.distributed import Processes
from edgetl.training.full_precision import full_precision
from edgetl.training.pixels import Done, decoder, store
from edgetl.training.storage import allocate

_BATCH = {"cpu": 16, "cuda": 256}


@dataclass(frozen=True)
class Scores:
    """accuracy in 0..1; loss: mean of −ln p of the right class, in nats."""

    accuracy: float
    loss: float

    def better_than(self, other: Scores | None) -> bool:
        """More accurate, or as accurate with a smaller loss."""
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


class Validation:
    """The validation photos; each process keeps its share of them.

    After making one, ask ``unreadable`` (path → reason, of all processes) before anything else.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: PreprocessSpec,
        processes: Processes,
        folder: Path,
        *,
        threads: int = 0,
        done: Done = lambda: None,
    ) -> None:
        """folder: where decoded photos go that don't fit into memory."""
        self.labels = np.array([sample.label for sample in samples], np.int64)
        self._processes = processes
        self._mine = list(samples)[processes.rank :: processes.count]
        self._normalizer = Normalizer(spec, processes.device)
        self._decode, self._threads = decoder(spec), threads
        size = spec.fixed_size
        if size is None:
            raise TrainingError("Training needs a preprocessing with one output size.", "Give --image-size.")
        self._room = allocate((len(self._mine), *size, 3), "auto", folder)
        if self._room is None:
            found = find_unreadable(self._paths(), threads=threads or None, done=done)
        else:
            found = store(self._mine, self._decode, self._room, threads=threads, done=done).unreadable
        self.unreadable = {path: why for part in processes.gather(found) for path, why in part.items()}

    @torch.inference_mode()
    def logits(self, network: nn.Module) -> NDArray[np.float32]:
        """float32 [N, classes], of all photos in their order, in every process. ``network`` must be in eval mode."""
        device = self._processes.device
        with full_precision():
            parts = [
                network(self._normalizer(torch.from_numpy(pixels).to(device))).float().cpu().numpy()
                for pixels in self._batches()
            ]
        gathered = self._processes.gather(np.concatenate(parts) if parts else None)
        shares = [share for share in gathered if share is not None]
        logits = np.empty((len(self.labels), shares[0].shape[1]), np.float32)
        for rank, share in enumerate(shares):
            logits[rank :: self._processes.count] = share
        return logits

    def _batches(self) -> Iterator[NDArray[np.uint8]]:
        size = _BATCH[self._processes.device.type]
        if self._room is not None:
            yield from (self._room[start : start + size] for start in range(0, len(self._mine), size))
            return
        with ThreadPoolExecutor(self._threads or None) as pool:
            for start in range(0, len(self._mine), size):
                yield np.stack([pixels for pixels, _ in pool.map(self._decode, self._paths()[start : start + size])])

    def _paths(self) -> list[Path]:
        return [sample.path for sample in self._mine]


def scores(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Accuracy and loss of float [N, classes] logits for int64 [N] labels, computed in double precision."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    right = log_probabilities[np.arange(len(labels)), labels]
    return Scores(float((logits.argmax(1) == labels).mean()), float(-right.mean()))
