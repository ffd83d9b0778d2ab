"""Photos that arrive at about the same time, run together: what keeps a GPU busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgetl.errors import PredictionError
from edgetl.runtime.inference.prediction import Prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray

Run = Callable[[Sequence[str], "NDArray[np.uint8]"], list[Prediction | PredictionError]]


class _Waiting(NamedTuple):
    name: str
    image: NDArray[np.uint8]
    arrived: float
    result: asyncio.Future[Prediction | PredictionError]


class PhotoBatches:
    """Runs a model on all images of one shape that wait, one batch after the other.

    run       the model: names, and images uint8 [N, h, w, 3] -> a result for each
    size      images in a batch, at most
    max_wait  seconds that the first image of a batch waits for others; while a batch is running,
              the next one gathers in any case
    """

    def __init__(self, run: Run, size: int, max_wait: float) -> None:
        self._run, self._size, self._max_wait = run, size, max_wait
        self._waiting: list[_Waiting] = []
        self._is_full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edgetl-batches")

    async def classify(self, name: str, image: NDArray[np.uint8]) -> Prediction | PredictionError:
        """The result for one image, uint8 [h, w, 3]. Raises what ``run`` raises."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(name, image, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        if len(self._waiting) >= self._size:
            self._is_full.set()
        if self._task is None:
            self._task = loop.create_task(self._run_all())
        return await waiting.result

    async def _run_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._waiting[0].arrived + self._max_wait):
                    await self._is_full.wait()
            batch = self._take()
            if not batch:
                continue
            names, images = [one.name for one in batch], np.stack([one.image for one in batch])
            try:
                results = await loop.run_in_executor(self._thread, self._run, names, images)
            except Exception as error:  # each of them is told, and the next batch may succeed
                for one in batch:
                    if not one.result.done():
                        one.result.set_exception(error)
                continue
            for one, result in zip(batch, results, strict=True):
                if not one.result.done():
                    one.result.set_result(result)
        self._task = None

    def _take(self) -> list[_Waiting]:
        """Those of the first one's shape, leaving out whose sender has gone."""
        waiting = [one for one in self._waiting if not one.result.done()]
        batch = [one for one in waiting if one.image.shape == waiting[0].image.shape][: self._size]
        taken = set(map(id, batch))
        self._waiting = [one for one in waiting if id(one) not in taken]
        if len(self._waiting) < self._size:
            self._is_full.clear()
        return batch
