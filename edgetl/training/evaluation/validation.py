"""The validation photos: decoded once as the predictor does, and classified over all processes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from edgetl.data.image_folder import Sample, find_unreadable
from edgetl.errors import TrainingError
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.progress import Progress, ProgressCounter, no_progress
from edgetl.training.head.temperature import fit_temperature
from edgetl.training.input.augment import Normalizer
from edgetl.training.input.decoded_photos import ValidationDecoder, decode_photos
from edgetl.training.input.photo_storage import allocate
from edgetl.training.models.network_split import NetworkSplit
from edgetl.training.torch_env.device_transfer import to_device
from edgetl.training.torch_env.distributed import Processes
from edgetl.training.torch_env.oom_retry import halve_on_oom
from edgetl.training.torch_env.torch_flags import full_precision

# In float32 a batch takes more memory than a training batch in 16 bits.
_BATCH_CPU, _BATCH_GPU = 16, 64
_STEP = "Decoding validation photos"


@dataclass(frozen=True)
class Scores:
    """How good logits are.

    accuracy  0..1
    loss      mean of −ln p of the true class, in nats
    tempered  the same at the temperature with the least loss, which is what is exported: label
              smoothing and a linear head fitted alone differ in confidence, not in quality
    """

    accuracy: float
    loss: float
    tempered: float

    def better_than(self, other: Scores | None) -> bool:
        """Whether it is more accurate, or as accurate with a smaller tempered loss."""
        return other is None or (self.accuracy, -self.tempered) > (other.accuracy, -other.tempered)


class Validation:
    """The validation photos that can be read; each process decodes and classifies its share.

    labels      int64 [N], in the order of the photos
    unreadable  path → reason, of all processes
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: PreprocessSpec,
        processes: Processes,
        folder: Path,
        *,
        threads: int,
        progress: Progress = no_progress,
    ) -> None:
        """folder: where decoded photos are stored that don't fit into memory."""
        self._processes = processes
        self._mine = list(samples)[processes.rank :: processes.world_size]
        self._normalizer = Normalizer(spec, processes.device)
        self._decode, self._threads = ValidationDecoder(spec), threads
        pixels = allocate((len(self._mine), *spec.input_size, 3), "auto", folder)
        # What ``logits`` begins with: pixels, or activations; None: decoded each time.
        self._inputs: NDArray[Any] | None = pixels
        if pixels is None:
            count = ProgressCounter(progress, _STEP, len(self._mine))
            found = find_unreadable(self._mine, threads=threads, done=count)
        else:
            found = decode_photos(
                self._mine,
                self._decode,
                pixels,
                threads=threads,
                step=_STEP,
                progress=progress,
            ).unreadable
        self.unreadable = {
            path: reason for part in processes.all_gather(found) for path, reason in part.items()
        }
        self._leave_out(found)
        self._split: NetworkSplit | None = None
        readable = [sample for sample in samples if sample.path not in self.unreadable]
        self.labels = np.array([sample.label for sample in readable], np.int64)
        rows = {sample.path: row for row, sample in enumerate(readable)}
        shares = (samples[rank :: processes.world_size] for rank in range(processes.world_size))
        self._rows = [
            [rows[sample.path] for sample in share if sample.path in rows] for share in shares
        ]  # of each process, in ``labels``

    def _leave_out(self, unreadable: Collection[Path]) -> None:
        kept = [row for row, sample in enumerate(self._mine) if sample.path not in unreadable]
        if len(kept) < len(self._mine):
            self._mine = [self._mine[row] for row in kept]
            if self._inputs is not None:
                for new, old in enumerate(kept):  # in place: there may be no room for a copy
                    self._inputs[new] = self._inputs[old]

    @torch.inference_mode()
    def logits(self, network: nn.Module) -> NDArray[np.float32]:
        """float32 [N, classes] of all photos, in every process. ``network`` is in eval mode."""
        split = self._split

        def compute(batch: NDArray[Any]) -> Tensor:
            values = torch.from_numpy(batch)
            logits: Tensor
            logits = split.upper(network, values) if split else network(self._normalized(values))
            return logits.float()

        with full_precision():
            parts = [halve_on_oom(compute, pixels) for pixels in self._batches()]
            # Copied once: each copy would wait for the GPU.
            mine = torch.cat(parts).cpu().numpy() if parts else None
        gathered = zip(self._rows, self._processes.all_gather(mine), strict=True)
        shares = [(rows, share) for rows, share in gathered if share is not None]
        logits = np.empty((len(self.labels), shares[0][1].shape[1]), np.float32)
        for rows, share in shares:
            logits[rows] = share
        return logits

    def _normalized(self, pixels: Tensor) -> Tensor:
        return self._normalizer(to_device(pixels, self._processes.device))

    @torch.inference_mode()
    def keep_activations(self, network: nn.Module, split: NetworkSplit, folder: Path) -> None:
        """Run the frozen part of ``network`` once, if there is room for what it gives.

        From then on ``logits`` only runs the rest, and gives the same bits. In one process only.
        """
        nbytes = split.width * np.float32().nbytes
        room = None
        with suppress(TrainingError):  # of a disk that has filled up meanwhile
            room = allocate((len(self._mine), nbytes), "auto", folder)
        if room is None:
            return
        kept = room.view(np.float32)
        start = 0
        with full_precision():
            for pixels in self._batches():
                found = split.lower(network, self._normalized(torch.from_numpy(pixels)))
                kept[start : start + len(found)] = found.numpy()
                start += len(found)
        self._inputs, self._split = kept, split

    def _batches(self) -> Iterator[NDArray[Any]]:
        size = _BATCH_GPU if self._processes.device.type == "cuda" else _BATCH_CPU
        starts = range(0, len(self._mine), size)
        if self._inputs is not None:
            inputs = self._inputs[: len(self._mine)]
            yield from (inputs[start : start + size] for start in starts)
            return
        with ThreadPoolExecutor(self._threads) as pool:
            for start in starts:
                decoded = pool.map(self._decode, self._mine[start : start + size])
                yield np.stack([pixels for pixels, _ in decoded])


def scores(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """The scores of float [N, classes] logits for int64 [N] labels, in double precision."""

    def loss(temperature: float) -> float:
        log_probabilities = log_softmax(logits.astype(np.float64) / temperature, axis=1)
        return float(-log_probabilities[np.arange(len(labels)), labels].mean())

    temperature = fit_temperature(logits, labels) if np.isfinite(logits).all() else 1.0
    accuracy = float((logits.argmax(1) == labels).mean())
    return Scores(accuracy, loss(1.0), loss(temperature))
