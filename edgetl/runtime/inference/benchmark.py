"""How fast a model is on this device: each stage apart, the whole, a fresh process, and what threads and batches change."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import RuntimeUnavailableError
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.inference.predictor import Predictor
from edgetl.system.machine import cores, processor

BATCHES = (1, 2, 4, 8, 16)
_WARM_UP = 5

_FRESH_PROCESS = """
import json, sys
from edgetl import EdgetlError, Predictor
options = json.loads(sys.argv[3])
try:
    Predictor(sys.argv[1], **options)(sys.argv[2])
except EdgetlError as error:
    sys.exit(str(error))
from edgetl.runtime.inference.benchmark import peak_memory
print(json.dumps(peak_memory()))
"""


@dataclass(frozen=True)
class Timing:
    """Percentiles of ``count`` runs, milliseconds."""

    p50: float
    p95: float
    p99: float
    count: int


@dataclass(frozen=True)
class Bench:
    """What was measured; times in milliseconds, memory in bytes, rates in photos a second.

    stages      decode, resize, model, and total: from the file to the label, as a whole
    cold_start  seconds of a fresh process that classifies one photo, the best of three
    cold_memory its peak resident memory, None where the system does not tell
    throughput  of ``Predictor.batch``
    threads     median of one run of the model, by threads inside it
    batches     median of one run of the model divided by its photos, by photos in it
    """

    machine: dict[str, Any]
    photos: int
    stages: dict[str, Timing]
    cold_start: float
    cold_memory: int | None
    peak_memory: int | None
    throughput: float
    threads: dict[int, float]
    batches: dict[int, float]


def bench(predictor: Predictor, photos: Sequence[Path], *, runs: int = 100) -> Bench:
    """Measure ``predictor`` on ``photos`` (at least one), ``runs`` times each stage.

    Raises ImageError for a photo that can't be read, RuntimeUnavailableError if a fresh process fails.
    """
    cold_start, cold_memory = _cold_start(predictor, photos[0])
    stages = _stages(predictor, photos, runs)
    resized = predictor.resize(read_image(photos[0], max_pixels=predictor.max_pixels))[np.newaxis]
    return Bench(
        machine=machine(predictor),
        photos=len(photos),
        stages=stages,
        cold_start=cold_start,
        cold_memory=cold_memory,
        throughput=_throughput(predictor, photos, runs),
        threads=_by_threads(predictor, resized, runs),
        batches=_by_batch(predictor, resized, runs),
        peak_memory=peak_memory(),
    )


def machine(predictor: Predictor) -> dict[str, Any]:
    """What it was measured on."""
    import onnxruntime
    import PIL

    return {
        "processor": processor(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "provider": predictor.provider,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def peak_memory() -> int | None:
    """Most resident memory that this process has held, bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    if (
        status.exists()
    ):  # what getrusage says includes the parent's memory, from before the program was started
        line = next(
            (line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None
        )
        return int(line.split()[1]) * 1024 if line else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _stages(predictor: Predictor, photos: Sequence[Path], runs: int) -> dict[str, Timing]:
    samples: dict[str, list[float]] = {"decode": [], "resize": [], "model": [], "total": []}
    for photo in islice(cycle(photos), runs + _WARM_UP):
        clock = [time.perf_counter()]
        image = read_image(photo, max_pixels=predictor.max_pixels)
        clock.append(time.perf_counter())
        resized = predictor.resize(image)[np.newaxis]
        clock.append(time.perf_counter())
        predictor.run_model(resized)
        clock.append(time.perf_counter())
        predictor(photo)
        clock.append(time.perf_counter())
        for name, start, end in zip(samples, clock, clock[1:], strict=False):
            samples[name].append(end - start)
    return {name: _timing(values[_WARM_UP:]) for name, values in samples.items()}


def _cold_start(predictor: Predictor, photo: Path) -> tuple[float, int | None]:
    # -P: not the current folder first, where a checkout called edgetl would be taken for the package.
    command = [
        sys.executable,
        "-P",
        "-c",
        _FRESH_PROCESS,
        str(predictor.path),
        str(photo),
        json.dumps(predictor.options),
    ]
    seconds, memory = [], None
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - start)
        if done.returncode:
            said = done.stderr.strip() or "no message"
            reason = said.splitlines()[-1] if said.startswith("Traceback") else said
            raise RuntimeUnavailableError(f"A fresh process could not classify {photo}: {reason}")
        memory = json.loads(done.stdout)
    return min(seconds), memory


def _throughput(predictor: Predictor, photos: Sequence[Path], runs: int) -> float:
    list(predictor.batch(photos[:2]))
    start = time.perf_counter()
    for _ in predictor.batch(islice(cycle(photos), runs)):
        pass
    return runs / (time.perf_counter() - start)


def _by_threads(predictor: Predictor, resized: NDArray[np.uint8], runs: int) -> dict[int, float]:
    counts = sorted({1, *(2**i for i in range(1, 9) if 2**i < cores()), cores()})
    return {threads: _median_run(predictor, resized, runs, threads) for threads in counts}


def _by_batch(predictor: Predictor, resized: NDArray[np.uint8], runs: int) -> dict[int, float]:
    stacked = {size: np.repeat(resized, size, axis=0) for size in BATCHES}
    return {
        size: _median_run(predictor, images, max(runs // size, 3)) / size
        for size, images in stacked.items()
    }


def _median_run(
    predictor: Predictor, images: NDArray[np.uint8], runs: int, threads: int | None = None
) -> float:
    predictor.run_model(images, threads=threads)
    samples = []
    for _ in range(runs):
        start = time.perf_counter()
        predictor.run_model(images, threads=threads)
        samples.append(time.perf_counter() - start)
    return _timing(samples).p50


def _timing(seconds: Sequence[float]) -> Timing:
    p50, p95, p99 = (
        float(value) for value in np.percentile(np.asarray(seconds) * 1000, [50, 95, 99])
    )
    return Timing(p50, p95, p99, len(seconds))
