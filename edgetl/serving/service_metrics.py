"""What Prometheus is told of a service. Several processes are counted together.

prometheus-client adds processes up where METRICS_FOLDER was set before it was imported:
each writes its figures to files in that folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from edgetl.errors import PredictionError
from edgetl.runtime.inference.prediction import Prediction, Result
from edgetl.serving.service_settings import METRICS_FOLDER

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


class ServiceMetrics:
    """The figures of this process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # when each began: of no use
        self._registry = registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.requests = counter("edgetl_requests", "Requests answered.", ("endpoint", "status"))
        self.request_seconds = histogram(
            "edgetl_request_seconds",
            "Seconds from a request's first line to its answer.",
            ("endpoint",),
            buckets=_SECONDS,
        )
        self.errors = counter("edgetl_errors", "Requests and photos that failed.", ("kind",))
        self.queue = Gauge(
            "edgetl_queue_photos",
            "Photos that wait or are worked on.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.photos = counter("edgetl_photos", "Photos classified.", ("model", "label"))
        self.unknown = counter(
            "edgetl_unknown_photos", "Photos unlike the training photos.", ("model",)
        )
        self.confidence = histogram(
            "edgetl_confidence", "Probability of the label.", ("model",), buckets=_CONFIDENCES
        )
        self.photo_seconds = histogram(
            "edgetl_photo_seconds",
            "Seconds from an encoded photo to its label, without waiting.",
            ("model",),
            buckets=_SECONDS,
        )
        self.reloads = counter(
            "edgetl_reloads", "Models that were replaced on disk.", ("model", "result")
        )
        if METRICS_FOLDER not in os.environ:
            ProcessCollector(registry=registry)

    def count_results(self, model: str, results: Sequence[tuple[Result, float]]) -> None:
        """Count photos, each with the seconds that it took."""
        for result, seconds in results:
            if not isinstance(result, Prediction):
                kind = "model" if isinstance(result, PredictionError) else "photo"
                self.errors.labels(kind).inc()
                continue
            self.photos.labels(model, result.label).inc()
            self.confidence.labels(model).observe(result.confidence)
            self.photo_seconds.labels(model).observe(seconds)
            if result.is_unknown:
                self.unknown.labels(model).inc()

    def text(self) -> bytes:
        """The figures of all processes in Prometheus' text format."""
        folder = os.environ.get(METRICS_FOLDER)
        if folder is None:
            return generate_latest(self._registry)
        _forget_dead_processes(Path(folder))
        together = CollectorRegistry()
        MultiProcessCollector(together, path=folder)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _forget_dead_processes(folder: Path) -> None:
    """Gauges of a process that was killed would count for ever; its counters are meant to."""
    for file in folder.glob("gauge_live*.db"):
        if found := re.search(r"_(\d+)\.db$", file.name):
            with suppress(PermissionError):
                try:
                    os.kill(int(found[1]), 0)
                except ProcessLookupError:
                    mark_process_dead(int(found[1]), str(folder))  # type: ignore[no-untyped-call]
