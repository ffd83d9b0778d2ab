"""The parts of a service that its endpoints share: models, queue, limits and figures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from starlette.requests import ClientDisconnect, Request

from edgetl.errors import ImageError, PredictionError
from edgetl.runtime.images.decode import Source, may_pass
from edgetl.runtime.inference.prediction import Result
from edgetl.serving.photo_queue import PhotoQueue
from edgetl.serving.request_body import RequestBodies
from edgetl.serving.request_errors import RequestError, busy
from edgetl.serving.served_models import ServedModel, ServedModels
from edgetl.serving.service_metrics import ServiceMetrics
from edgetl.serving.service_settings import ServiceSettings
from edgetl.system.freed_memory import give_back_freed_memory
from edgetl.system.machine import cores

_log = logging.getLogger(__name__)

_POLL = 0.5  # seconds between two looks for a new model on disk


class PhotoService:
    """Classifies the photos of requests with ``models``."""

    def __init__(self, settings: ServiceSettings, models: ServedModels) -> None:
        self.settings, self.models = settings, models
        self.metrics = ServiceMetrics()
        self.bodies = RequestBodies(settings.max_body, settings.timeout)
        threads = settings.predictor.get("threads") or 1
        self._queue = PhotoQueue(
            settings.queue,
            max(1, cores() // settings.workers // threads),
            on_count=self.metrics.queue.set,
        )

    def model(self, name: str | None) -> ServedModel:
        """The model of that name; of None, the first one. Raises RequestError."""
        try:
            return self.models[name]
        except KeyError:
            names = ", ".join(model.name for model in self.models)
            message = f"There is no model {name!r}. There is: {names}."
            raise RequestError(404, "request", message) from None

    async def classify(
        self, request: Request, model: ServedModel, photos: Sequence[Source]
    ) -> tuple[list[Result], dict[str, str]]:
        """A result for each photo, and headers that tell by which model and in what time.

        What waits is dropped if the client goes away. Raises RequestError if there is no room for
        the photos or no time, ClientDisconnect.
        """
        start = time.perf_counter()
        work = asyncio.ensure_future(self._queue.classify(model, photos))
        gone = asyncio.ensure_future(request.receive())  # comes when the client disconnects
        try:
            done, _ = await asyncio.wait(
                (work, gone), timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if work not in done:
                if gone in done:
                    raise ClientDisconnect
                raise busy(f"There was no answer within {self.settings.timeout:g} seconds.")
            results = await work
        finally:
            for task in (work, gone):
                task.cancel()
        self.metrics.count_results(model.name, results)
        for result, _ in results:
            if isinstance(result, PredictionError):
                _log.error("%s: %s", model.name, result.message)
        in_model = sum(seconds for _, seconds in results)
        total = time.perf_counter() - start
        headers = {
            "Edgetl-Model": model.version,
            "Server-Timing": f"photos;dur={1000 * in_model:.2f}, total;dur={1000 * total:.2f}",
        }
        return [result for result, _ in results], headers

    async def watch(self) -> None:
        """Take models that are replaced on disk, until cancelled."""
        while True:
            await asyncio.sleep(_POLL)
            try:
                tried = await asyncio.to_thread(self.models.take_replaced)
            except Exception:  # the models in use serve on, and the next look may succeed
                _log.exception("Looking for new models failed.")
                continue
            for name, taken in tried.items():
                self.metrics.reloads.labels(name, "taken" if taken else "refused").inc()
            if tried:
                await asyncio.sleep(_POLL)  # photos that had begun are with the old model
                await asyncio.to_thread(give_back_freed_memory)

    def close(self) -> None:
        """Drop what waits."""
        self._queue.close()


def status_of(failures: list[Result]) -> int:
    """The status of a response to photos none of which was classified.

    422 for photos that can't be read, 503 where only the system failed to, 500 for a model's error.
    """
    if any(isinstance(failure, PredictionError) for failure in failures):
        return 500
    passing = all(isinstance(f, ImageError) and may_pass(f.reason) for f in failures)
    return 503 if passing else 422
