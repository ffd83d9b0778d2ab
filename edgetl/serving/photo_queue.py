"""Photos that wait for a model: so many at most, and as many worked on as there are threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from edgetl.errors import ImageError, PredictionError, without_traceback
from edgetl.runtime.images.decode import Source, describe
from edgetl.runtime.inference.prediction import Result
from edgetl.runtime.inference.predictor import Predictor
from edgetl.serving.request_errors import RequestError, busy
from edgetl.serving.served_models import ServedModel


class PhotoQueue:
    """Runs photos through predictors in ``threads`` threads.

    limit     photos that may wait or be worked on
    on_count  called with their number when it changes
    """

    def __init__(self, limit: int, threads: int, on_count: Callable[[int], object]) -> None:
        self._limit, self._on_count = limit, on_count
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="edgetl")
        self._count = 0

    async def classify(
        self, model: ServedModel, photos: Sequence[Source]
    ) -> list[tuple[Result, float]]:
        """A result for each photo, with the seconds that it took. Cancelling drops what waits.

        Raises RequestError if there is no room for them.
        """
        if len(photos) > self._limit:
            message = f"A request may have at most {self._limit} photos: send several requests."
            raise RequestError(413, "too large", message)
        if self._count + len(photos) > self._limit:
            raise busy(f"{self._count} photos are waiting already.")
        self._add(len(photos))
        try:
            return await asyncio.gather(*(self._classify(model, photo) for photo in photos))
        finally:
            self._add(-len(photos))

    async def _classify(self, model: ServedModel, photo: Source) -> tuple[Result, float]:
        loop = asyncio.get_running_loop()
        if model.batches is None:
            return await loop.run_in_executor(self._pool, _timed, model.predictor, photo)
        start = time.perf_counter()
        try:
            image = await loop.run_in_executor(self._pool, model.predictor.preprocess, photo)
            result: Result = await model.batches.classify(describe(photo), image)
        except ImageError as error:
            result = without_traceback(error)
        return result, time.perf_counter() - start

    def _add(self, photos: int) -> None:
        self._count += photos
        self._on_count(self._count)

    def close(self) -> None:
        """Drop what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _timed(predictor: Predictor, photo: Source) -> tuple[Result, float]:
    start = time.perf_counter()
    result: Result
    try:
        result = predictor(photo)
    except (ImageError, PredictionError) as error:
        result = without_traceback(error)
    return result, time.perf_counter() - start
