"""The validation photos: decoded once through the exact path, each judged once, over all processes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from edgetl.data.image_folder import Sample, find_unreadable
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.head.temperature import fit_temperature
from edgetl.training.input.augment import Normalizer
from edgetl.training.input.decoded_photos import Done, exact_decoder, store
from edgetl.training.input.photo_storage import allocate
from edgetl.training.models.backbones import input_size
from edgetl.training.torch_env.device_transfer import to_device
from edgetl.training.torch_env.distributed import Processes
from edgetl.training.torch_env.oom_retry import halve_on_oom
from edgetl.training.torch_env.torch_flags import full_precision

_BATCH = (
    16,
    64,
)  # on a CPU, on a GPU: in float32, which takes more memory than a training batch in 16 bits


@dataclass(frozen=True)
class Scores:
    """What logits are worth.

    accuracy  0..1
    loss      mean of −ln p of the right class, in nats
    tempered  the same at the temperature of the least loss, which is what is exported: label smoothing and a solved
              head differ in how sure they are, and that says nothing about which is better
    """

    accuracy: float
    loss: float
    tempered: float

    def better_than(self, other: Scores | None) -> bool:
        """More accurate, or as accurate with a smaller tempered loss."""
        return other is None or (self.accuracy, -self.tempered) > (other.accuracy, -other.tempered)


class Validation:
    """The validation photos that can be read; each process keeps its share of them.

    labels      int64 [N], in the photos' order
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
        done: Done = lambda: None,
    ) -> None:
        """folder: where decoded photos go that don't fit into memory."""
        self._processes = processes
        self._mine = list(samples)[processes.rank :: processes.world_size]
        self._normalizer = Normalizer(spec, processes.device)
        self._decode, self._threads = exact_decoder(spec), threads
        self._room = allocate((len(self._mine), *input_size(spec), 3), "auto", folder)
        if self._room is None:
            found = find_unreadable(self._mine, threads=threads, done=done)
        else:
            found = store(
                self._mine, self._decode, self._room, threads=threads, done=done
            ).unreadable
        self.unreadable = {
            path: why for part in processes.all_gather(found) for path, why in part.items()
        }
        self._leave_out(found)
        shares = [samples[rank :: processes.world_size] for rank in range(processes.world_size)]
        places = {
            sample.path: place
            for place, sample in enumerate(s for s in samples if s.path not in self.unreadable)
        }
        self._places = [
            [places[sample.path] for sample in share if sample.path in places] for share in shares
        ]
        self.labels = np.array(
            [sample.label for sample in samples if sample.path in places], np.int64
        )

    def _leave_out(self, unreadable: Collection[Path]) -> None:
        kept = [row for row, sample in enumerate(self._mine) if sample.path not in unreadable]
        if len(kept) < len(self._mine):
            self._mine = [self._mine[row] for row in kept]
            if self._room is not None:
                for new, old in enumerate(kept):  # in place: there may not be room for it twice
                    self._room[new] = self._room[old]

    @torch.inference_mode()
    def logits(self, network: nn.Module) -> NDArray[np.float32]:
        """float32 [N, classes], of all photos in their order, in every process. ``network`` must be in eval mode."""
        device = self._processes.device

        def compute(pixels: NDArray[np.uint8]) -> Tensor:
            logits: Tensor = network(self._normalizer(to_device(torch.from_numpy(pixels), device)))
            return logits.float()

        with full_precision():
            parts = [halve_on_oom(compute, pixels) for pixels in self._batches()]
            mine = (
                torch.cat(parts).cpu().numpy() if parts else None
            )  # once: each time would wait for the GPU
        gathered = zip(self._places, self._processes.all_gather(mine), strict=True)
        shares = [(places, share) for places, share in gathered if share is not None]
        logits = np.empty((len(self.labels), shares[0][1].shape[1]), np.float32)
        for places, share in shares:
            logits[places] = share
        return logits

    def _batches(self) -> Iterator[NDArray[np.uint8]]:
        size = _BATCH[self._processes.device.type == "cuda"]
        if self._room is not None:
            room = self._room[: len(self._mine)]
            yield from (room[start : start + size] for start in range(0, len(room), size))
            return
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(0, len(self._mine), size):
                yield np.stack(
                    [
                        pixels
                        for pixels, _ in pool.map(self._decode, self._mine[start : start + size])
                    ]
                )


def scores(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """The scores of float [N, classes] logits for int64 [N] labels, computed in double precision."""
    losses = [
        float(
            -log_softmax(logits.astype(np.float64) / temperature, axis=1)[
                np.arange(len(labels)), labels
            ].mean()
        )
        for temperature in (
            1.0,
            fit_temperature(logits, labels) if np.isfinite(logits).all() else 1.0,
        )
    ]
    return Scores(float((logits.argmax(1) == labels).mean()), *losses)
