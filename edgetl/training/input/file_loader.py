"""Augmented batches from photo files that worker processes decode again in every epoch."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from edgetl.data.image_folder import PUT_BACK, Sample
from edgetl.errors import DataError, ImageError, TrainingError
from edgetl.system.stop_signal import HANGUP
from edgetl.training.input.decoded_photos import Decode, DecodedPhoto
from edgetl.training.input.loader import Batch, BatchBuilder
from edgetl.training.input.photo_storage import SHARED_MEMORY, free_bytes
from edgetl.training.input.sampler import BatchShard
from edgetl.training.torch_env.device_transfer import to_device

T = TypeVar("T")


class FileLoader:
    """Batches of photos that are read and decoded when they are needed."""

    def __init__(
        self,
        samples: Sequence[Sample],
        decode: Decode,
        builder: BatchBuilder,
        device: torch.device,
        workers: int,
    ) -> None:
        self._dataset = PhotoDataset(samples, decode)
        self._builder, self._device, self._workers = builder, device, workers

    def batches(self, shards: Iterable[BatchShard]) -> Iterator[Batch]:
        """See ``Loader``. Raises DataError for a photo that can't be decoded."""
        # Shards that were given to the workers, which are some batches ahead.
        pending: queue.SimpleQueue[BatchShard] = queue.SimpleQueue()

        def indices() -> Iterator[list[int]]:
            for shard in shards:
                pending.put(shard)
                yield shard.indices.tolist()

        with warnings.catch_warnings(), _child_signal_handler_kept():
            # Python 3.12 warns of forking beside threads; these workers touch none of theirs.
            # torch warns of more workers than cores, which the user asked for.
            warnings.filterwarnings("ignore", ".*(fork|worker processes).*")
            stream: Any = iter(
                DataLoader(
                    self._dataset,
                    batch_sampler=indices(),
                    num_workers=self._workers,
                    collate_fn=collate,
                    pin_memory=self._device.type == "cuda",
                    # Python 3.14's default would import torch again in each worker: seconds.
                    multiprocessing_context="fork" if sys.platform == "linux" else None,
                    worker_init_fn=_init_worker,
                    # Else it draws its seed from the global generator, which dropout uses.
                    generator=torch.Generator(),
                )
            )
        try:
            for decoded in explain_worker_errors(stream):
                shard = pending.get()
                if isinstance(decoded, str):
                    raise DataError(decoded, PUT_BACK)
                pixels, aspects = (torch.as_tensor(part) for part in decoded)
                tensors = (pixels, *self._builder.draw(shard, aspects))
                yield self._builder(shard, *(to_device(part, self._device) for part in tensors))
        finally:
            # Workers ignore SIGINT and SIGTERM, so nothing else would end them after an error.
            stream._shutdown_workers()
            for worker in stream._workers:  # those that hang in a read
                worker.kill()


@contextmanager
def _child_signal_handler_kept() -> Iterator[None]:
    """Undo torch's SIGCHLD handler, which raises at any point, such as amid a write.

    That a worker has died is noticed with the next batch.
    """
    number = getattr(signal, "SIGCHLD", None)
    before = signal.getsignal(number) if number else None
    try:
        yield
    finally:
        if number and before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


def explain_worker_errors(stream: Iterator[T]) -> Iterator[T]:
    """The same items. Raises TrainingError where torch reports that a worker process died."""
    try:
        yield from stream
    except RuntimeError as error:
        # The pin memory thread reads what the workers send.
        if not str(error).startswith(("DataLoader worker", "Pin memory thread")):
            raise
        raise TrainingError(
            "A process that decodes photos was killed; was there too little memory?",
            "Go on with edgetl train --resume.",
        ) from error


class PhotoDataset(Dataset["DecodedPhoto | str"]):
    """Index of a training photo → that photo, decoded, or why it can't be."""

    def __init__(self, samples: Sequence[Sample], decode: Decode) -> None:
        self._samples = list(samples)
        self._decode = decode

    def __getitem__(self, index: int) -> DecodedPhoto | str:
        try:
            return self._decode(self._samples[index])
        except ImageError as error:
            return error.message


def collate(
    photos: list[DecodedPhoto | str],
) -> tuple[Tensor | NDArray[np.uint8], NDArray[np.float32]] | str:
    """(pixels uint8 [n, h, w, 3], aspects float32 [n]), or why a photo can't be decoded.

    The pixels are a tensor, which goes to the main process in shared memory, or an array, which is
    pickled, where too little of that is free.
    """
    decoded: list[DecodedPhoto] = []
    for photo in photos:
        if isinstance(photo, str):
            return photo
        decoded.append(photo)
    pixels = np.stack([pixels for pixels, _ in decoded])
    aspects = np.array([aspect for _, aspect in decoded], np.float32)
    worker = get_worker_info()
    # Every worker may be about to take as much.
    needed = 2 * pixels.nbytes * (worker.num_workers if worker else 1)
    return (torch.from_numpy(pixels) if free_bytes(SHARED_MEMORY) > needed else pixels), aspects


def _init_worker(_: int) -> None:
    """Leave signals to the main process.

    A terminal sends Ctrl-C and its hangup to all processes; the main one reports them, once. On a
    SIGTERM to all processes of a run, the main one saves its state, which takes more batches, and
    then ends the workers.
    """
    torch.set_num_threads(1)
    parent = os.getppid()

    def end_if_orphaned(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    for number in (signal.SIGINT, HANGUP):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_if_orphaned)
