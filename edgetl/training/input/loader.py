"""Batches of augmented training photos on the device, one stream from anywhere in the run to its end."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from edgetl.data.image_folder import PUT_BACK, Sample
from edgetl.errors import DataError, ImageError, TrainingError
from edgetl.system.stop_signal import HANGUP
from edgetl.training.input.augment import BatchView, Normalizer
from edgetl.training.input.decoded_photos import Decode, StoredPhotos
from edgetl.training.input.photo_storage import SHARED_MEMORY, free_bytes
from edgetl.training.input.sampler import Share
from edgetl.training.torch_env.device_transfer import to_device

T = TypeVar("T")
_AHEAD = 3  # batches prepared while one is computed
_SHARE_OF_GPU = 0.25  # of its free memory, for decoded photos; gradients, averages and activations come after them


@dataclass(frozen=True)
class Batch:
    """images float32 [n, 3, h, w], normalized, channels last; labels int64 [n]; both on the device."""

    images: Tensor
    labels: Tensor
    share: Share


class Loader(Protocol):
    """Where a run's batches come from."""

    def batches(self, shares: Iterable[Share]) -> Iterator[Batch]:
        """One batch for each share, in order. The same share always gives the same batch."""


class Augmenter:
    """Photos, squashed to one size, → a batch: the same view whether they were decoded before the run or just now."""

    def __init__(self, labels: NDArray[np.int64], view: BatchView, normalizer: Normalizer) -> None:
        """labels: int64 [N], of the training photos."""
        self._labels = torch.from_numpy(labels)
        self._view, self._normalizer = view, normalizer

    def chances(self, share: Share, aspects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(warps, colours, labels) of a share's photos; aspects: float32 [n], width / height before they were squashed."""
        return *self._view.chances(share.epoch, share.positions, aspects), self._labels[
            torch.from_numpy(share.photos)
        ]

    @torch.no_grad()
    def __call__(
        self, share: Share, pixels: Tensor, warps: Tensor, colours: Tensor, labels: Tensor
    ) -> Batch:
        """All on the device, pixels uint8 [n, h, w, 3]."""
        return Batch(self._normalizer(self._view(pixels, warps, colours)), labels, share)


class StoredLoader:
    """From photos decoded before."""

    def __init__(
        self,
        photos: StoredPhotos,
        rows: NDArray[np.int64],
        augment: Augmenter,
        device: torch.device,
    ) -> None:
        """rows: int64 [N], where each training photo lies in ``photos``."""
        self._rows = torch.from_numpy(rows)
        self._aspects = torch.from_numpy(photos.aspects)
        self._augment, self._device = augment, device
        self._pixels = torch.from_numpy(photos.pixels)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what decoding and features took there counts as used until then
            if photos.pixels.nbytes <= torch.cuda.mem_get_info(device)[0] * _SHARE_OF_GPU:
                self._pixels = self._pixels.to(device)

    def batches(self, shares: Iterable[Share]) -> Iterator[Batch]:
        """See ``Loader``."""
        if self._device.type == "cuda":
            stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            for share, parts, copied in prefetched(self._copied(shares, stream), _AHEAD):
                current = torch.cuda.current_stream(self._device)
                current.wait_event(copied)
                for part in parts:
                    part.record_stream(current)
                yield self._augment(share, *parts)
        else:
            for share in shares:
                yield self._augment(share, *self._parts(share))

    def _parts(self, share: Share) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(pixels, warps, colours, labels) of a share, the pixels where they are stored."""
        rows = self._rows[torch.from_numpy(share.photos)]
        return self._gathered(rows), *self._augment.chances(share, self._aspects[rows])

    def _gathered(self, rows: Tensor) -> Tensor:
        if self._pixels.device.type == "cuda":
            return self._pixels[to_device(rows, self._device)]
        if self._device.type != "cuda":
            return self._pixels[rows]
        pinned = torch.empty(
            (len(rows), *self._pixels.shape[1:]), dtype=torch.uint8, pin_memory=True
        )
        return torch.index_select(self._pixels, 0, rows, out=pinned)

    def _copied(
        self, shares: Iterable[Share], stream: torch.cuda.Stream
    ) -> Generator[Any, None, None]:
        """Shares with their parts on the GPU and the event after which they may be used; copied beside the training."""
        for share in shares:
            with torch.cuda.stream(stream):
                parts = [to_device(part, self._device) for part in self._parts(share)]
                copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied.record(stream)
            yield share, parts, copied


class FileLoader:
    """From the files, decoded again in every epoch in worker processes."""

    def __init__(
        self,
        samples: Sequence[Sample],
        decode: Decode,
        augment: Augmenter,
        device: torch.device,
        workers: int,
    ) -> None:
        self._photos = _Photos(samples, decode)
        self._augment, self._device, self._workers = augment, device, workers

    def batches(self, shares: Iterable[Share]) -> Iterator[Batch]:
        """See ``Loader``."""
        waiting: queue.SimpleQueue[Share] = (
            queue.SimpleQueue()
        )  # the workers are some batches ahead

        def wanted() -> Iterator[list[int]]:
            for share in shares:
                waiting.put(share)
                yield share.photos.tolist()

        with warnings.catch_warnings(), _ended_children_as_before():
            # Python 3.12 warns of forking beside threads; these workers touch none of theirs. torch warns of more
            # workers than cores; someone asked for them.
            warnings.filterwarnings("ignore", ".*(fork|worker processes).*")
            stream: Any = iter(
                DataLoader(
                    self._photos,
                    batch_sampler=wanted(),
                    num_workers=self._workers,
                    collate_fn=_stacked,
                    pin_memory=self._device.type == "cuda",
                    # Python 3.14 would begin each anew, and import torch again: seconds.
                    multiprocessing_context="fork" if sys.platform == "linux" else None,
                    worker_init_fn=_begin_worker,
                    generator=torch.Generator(),  # or it draws from the step's own dice, dropout's, when it begins
                )
            )
        try:
            for decoded in _explained(stream):
                share = waiting.get()
                if isinstance(decoded, str):
                    raise DataError(decoded, PUT_BACK)
                pixels, aspects = (torch.as_tensor(part) for part in decoded)
                parts = (pixels, *self._augment.chances(share, aspects))
                yield self._augment(share, *(to_device(part, self._device) for part in parts))
        finally:
            # They end for no polite signal, and while an error is told nothing else would end them.
            stream._shutdown_workers()
            for worker in stream._workers:  # those that hang in a read
                worker.kill()


@contextmanager
def _ended_children_as_before() -> Iterator[None]:
    """Without torch's handler, which raises anywhere that a worker is gone, as in a write: it is told with the next batch."""
    number = getattr(signal, "SIGCHLD", None)
    before = signal.getsignal(number) if number else None
    try:
        yield
    finally:
        if number and before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


def _explained(stream: Iterator[T]) -> Iterator[T]:
    """The same items; says what to do where a worker process is gone."""
    try:
        yield from stream
    except RuntimeError as error:
        if not str(error).startswith(
            ("DataLoader worker", "Pin memory thread")
        ):  # which reads what the workers send
            raise
        raise TrainingError(
            "A process that decodes photos was ended from outside; was memory short?",
            "Go on with edgetl train --resume.",
        ) from error


_Photo: TypeAlias = "tuple[NDArray[np.uint8], float]"  # see Decode


class _Photos(Dataset["_Photo | str"]):
    """Number of a training photo → that photo, decoded, or why it can't be."""

    def __init__(self, samples: Sequence[Sample], decode: Decode) -> None:
        self._samples = list(samples)
        self._decode = decode

    def __getitem__(self, photo: int) -> _Photo | str:
        try:
            return self._decode(self._samples[photo])
        except ImageError as error:
            return error.message


def _stacked(
    photos: list[_Photo | str],
) -> tuple[Tensor | NDArray[np.uint8], NDArray[np.float32]] | str:
    """(pixels, aspects), or why a photo can't be decoded.

    A tensor goes from process to process in shared memory; an array, for want of that, is packed and unpacked.
    """
    decoded: list[_Photo] = []
    for photo in photos:
        if isinstance(photo, str):
            return photo
        decoded.append(photo)
    pixels, aspects = (
        np.stack([pixels for pixels, _ in decoded]),
        np.array([aspect for _, aspect in decoded], np.float32),
    )
    me = get_worker_info()
    wanted = 2 * pixels.nbytes * (me.num_workers if me else 1)  # each may be about to take as much
    return (torch.from_numpy(pixels) if free_bytes(SHARED_MEMORY) > wanted else pixels), aspects


def _begin_worker(_: int) -> None:
    torch.set_num_threads(1)
    run = os.getppid()

    def end(*_: object) -> None:
        if os.getppid() != run:
            os._exit(1)

    for number in (
        signal.SIGINT,
        HANGUP,
    ):  # a terminal's Ctrl-C comes to all, as its end does; the run tells of it, once
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
    signal.signal(
        signal.SIGTERM, end
    )  # sent to all processes of a run, the first saves, and ends the others


def prefetched(items: Generator[T, None, None], ahead: int) -> Iterator[T]:
    """The same items, up to ``ahead`` of them made in a thread before they are asked for; its errors are raised here."""
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(ahead)
    stop = threading.Event()

    def put(entry: tuple[T | None, BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                made.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        if device is not None:
            torch.cuda.set_device(
                device
            )  # a new thread begins on the first GPU, and would wake it up
        end: BaseException = StopIteration()
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as error:
            end = error
        put((None, end))

    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, end = made.get()
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end
            yield item  # type: ignore[misc]  # an item comes without an end
    finally:
        stop.set()
        thread.join()
