"""Augmented batches on the device, from photos that were decoded before the run."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.training.input.augment import BatchAugmentation, Normalizer
from edgetl.training.input.decoded_photos import DecodedPhotos
from edgetl.training.input.prefetch import prefetched
from edgetl.training.input.sampler import BatchShard
from edgetl.training.torch_env.device_transfer import to_device

_AHEAD = 3  # batches prepared while one is computed
# Of the GPU's free memory, for decoded photos; gradients and activations are yet to come.
_GPU_MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class Batch:
    """images float32 [n, 3, h, w], normalized, channels last; labels int64 [n]; on the device."""

    images: Tensor
    labels: Tensor
    shard: BatchShard


class Loader(Protocol):
    """Where the batches of a run come from."""

    def batches(self, shards: Iterable[BatchShard]) -> Iterator[Batch]:
        """One batch for each shard, in order. The same shard always gives the same batch."""


class BatchBuilder:
    """Makes batches of decoded photos: augments and normalizes them, and adds the labels."""

    def __init__(
        self, labels: NDArray[np.int64], augmentation: BatchAugmentation, normalizer: Normalizer
    ) -> None:
        """labels: int64 [N], of the training photos."""
        self._labels = torch.from_numpy(labels)
        self._augmentation, self._normalizer = augmentation, normalizer

    def draw(self, shard: BatchShard, aspects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(warps, colours, labels) of the photos of a shard, on the CPU.

        aspects  float32 [n], width / height of the original photos
        """
        labels = self._labels[torch.from_numpy(shard.indices)]
        return *self._augmentation.draw(shard.epoch, shard.positions, aspects), labels

    @torch.no_grad()
    def __call__(
        self, shard: BatchShard, pixels: Tensor, warps: Tensor, colours: Tensor, labels: Tensor
    ) -> Batch:
        """The batch of a shard; pixels uint8 [n, h, w, 3]; all tensors on the device."""
        return Batch(self._normalizer(self._augmentation(pixels, warps, colours)), labels, shard)


class CachedLoader:
    """Batches of photos that were decoded before."""

    def __init__(
        self,
        photos: DecodedPhotos,
        rows: NDArray[np.int64],
        builder: BatchBuilder,
        device: torch.device,
    ) -> None:
        """rows: int64 [N], the row of each training photo in ``photos``."""
        self._rows = torch.from_numpy(rows)
        self._aspects = torch.from_numpy(photos.aspects)
        self._builder, self._device = builder, device
        self._pixels = torch.from_numpy(photos.pixels)
        if device.type == "cuda":
            # Until then, what decoding and features have freed there still counts as used.
            torch.cuda.empty_cache()
            if photos.pixels.nbytes <= torch.cuda.mem_get_info(device)[0] * _GPU_MEMORY_SHARE:
                self._pixels = self._pixels.to(device)

    def batches(self, shards: Iterable[BatchShard]) -> Iterator[Batch]:
        """See ``Loader``."""
        if self._device.type == "cuda":
            stream = torch.cuda.Stream(self._device)
            for shard, tensors, copied in prefetched(self._copied(shards, stream), _AHEAD):
                current = torch.cuda.current_stream(self._device)
                current.wait_event(copied)
                for tensor in tensors:
                    tensor.record_stream(current)
                yield self._builder(shard, *tensors)
        else:
            for shard in shards:
                yield self._builder(shard, *self._tensors(shard))

    def _tensors(self, shard: BatchShard) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(pixels, warps, colours, labels) of a shard, the pixels where they are stored."""
        rows = self._rows[torch.from_numpy(shard.indices)]
        return self._gather(rows), *self._builder.draw(shard, self._aspects[rows])

    def _gather(self, rows: Tensor) -> Tensor:
        if self._pixels.device.type == "cuda":
            return self._pixels[to_device(rows, self._device)]
        if self._device.type != "cuda":
            return self._pixels[rows]
        shape = (len(rows), *self._pixels.shape[1:])
        pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return torch.index_select(self._pixels, 0, rows, out=pinned)

    def _copied(
        self, shards: Iterable[BatchShard], stream: torch.cuda.Stream
    ) -> Generator[tuple[BatchShard, list[Tensor], torch.cuda.Event], None, None]:
        """Shards, their tensors on the GPU, and the event after which these may be used.

        Copied on ``stream`` while the GPU trains.
        """
        for shard in shards:
            with torch.cuda.stream(stream):
                tensors = [to_device(tensor, self._device) for tensor in self._tensors(shard)]
                copied = torch.cuda.Event()
                copied.record(stream)
            yield shard, tensors, copied
