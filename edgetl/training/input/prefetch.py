"""Items made in a thread before they are needed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


def prefetched(items: Generator[T, None, None], ahead: int) -> Iterator[T]:
    """The same items, up to ``ahead`` of them made in a thread before they are asked for.

    An error of ``items`` is raised here, after the items before it.
    """
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
            torch.cuda.set_device(device)  # a new thread has the first GPU, and would initialise it
        end: BaseException = StopIteration()
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as error:
            end = error
        put((None, end))

    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
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
