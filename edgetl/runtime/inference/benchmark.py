"""How fast a model is on this device: each stage, the whole, a fresh process, threads, batches."""

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
from edgetl.runtime.images.stored_path import StoredPath
from edgetl.runtime.inference.predictor import Predictor
from edgetl.system.machine import cores, processor

FRESH_STARTS = 3
_BATCHES = (1, 2, 4, 8, 16)
_WARM_UP = 5

_FRESH_PROCESS = """
import json, sys
from edgetl import EdgetlError, Predictor
options = json.loads(sys.argv[3])
photo = sys.stdin.buffer if sys.argv[2] == "-" else sys.argv[2]
try:
    Predictor(sys.argv[1], **options)(photo)
except EdgetlError as error:
    sys.exit(str(error))
from edgetl.runtime.inference.benchmark import peak_memory
print(json.dumps(peak_memory()))
"""


@dataclass(frozen=True)
class Timing:
    """Percentiles of the times of ``count`` runs, milliseconds."""

    p50: float
    p95: float
    p99: float
    count: int


@dataclass(frozen=True)
class BenchmarkResult:
    """What was measured.

    machine      what it was measured on
    photos       number of photos
    stages       milliseconds of decode, resize, model, and total (from the file to the label)
    cold_start   seconds that a fresh process takes to classify one photo, the best of FRESH_STARTS
    cold_memory  its peak resident memory, bytes; None where the system does not report it
    peak_memory  the same of the measuring process
    throughput   photos per second of ``Predictor.batch``
    threads      threads → median milliseconds of one run of the model
    batches      photos in one run → median milliseconds per photo
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


def bench(predictor: Predictor, photos: Sequence[Path], *, runs: int = 100) -> BenchmarkResult:
    """Measure ``predictor`` on ``photos`` (at least one), ``runs`` times each stage.

    Raises ImageError for a photo that can't be read, RuntimeUnavailableError if a fresh process
    fails.
    """
    resized = predictor.resize(read_image(photos[0], max_pixels=predictor.max_pixels))[np.newaxis]
    fresh = [fresh_process(predictor, photos[0]) for _ in range(FRESH_STARTS)]
    stages = time_stages(predictor, photos, runs)
    threads = sorted({1, *(2**i for i in range(1, 9) if 2**i < cores()), cores()})
    return BenchmarkResult(
        machine=machine(predictor),
        photos=len(photos),
        stages=stages,
        cold_start=min(seconds for seconds, _ in fresh),
        cold_memory=fresh[-1][1],
        throughput=_throughput(predictor, photos, runs),
        threads={count: _median_run(predictor, resized, runs, count) for count in threads},
        batches=_by_batch(predictor, resized, runs),
        peak_memory=peak_memory(),
    )


def machine(predictor: Predictor) -> dict[str, Any]:
    """The processor, the system and the software that ``predictor`` runs on."""
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
    """Peak resident memory of this process, bytes; None where the system does not report it."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent's memory from before the exec
        lines = status.read_text().splitlines()
        line = next((line for line in lines if line.startswith("VmHWM:")), None)
        return int(line.split()[1]) * 1024 if line else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def time_stages(predictor: Predictor, photos: Sequence[Path], runs: int) -> dict[str, Timing]:
    """Milliseconds of decode, resize, model, and total (from the file to the label)."""
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


def fresh_process(predictor: Predictor, photo: Path) -> tuple[float, int | None]:
    """(seconds that a fresh process takes to classify ``photo``, its peak memory in bytes).

    Raises RuntimeUnavailableError if it fails.
    """
    # -P: a folder called edgetl in the current folder must not be taken for the package.
    command = [sys.executable, "-P", "-c", _FRESH_PROCESS]
    content = photo.read_bytes() if isinstance(photo, StoredPath) else None  # no file of its own
    name = str(photo) if content is None else "-"
    command += [str(predictor.path), name, json.dumps(predictor.options)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, input=content, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or "no message"
        if reason.startswith("Traceback"):
            reason = reason.splitlines()[-1]
        raise RuntimeUnavailableError(f"A fresh process could not classify {photo}: {reason}")
    return seconds, json.loads(done.stdout)


def _throughput(predictor: Predictor, photos: Sequence[Path], runs: int) -> float:
    list(predictor.batch(photos[:2]))
    start = time.perf_counter()
    for _ in predictor.batch(islice(cycle(photos), runs)):
        pass
    return runs / (time.perf_counter() - start)


def _by_batch(predictor: Predictor, resized: NDArray[np.uint8], runs: int) -> dict[int, float]:
    medians = {}
    for size in _BATCHES:
        images = np.repeat(resized, size, axis=0)
        medians[size] = _median_run(predictor, images, max(runs // size, 3)) / size
    return medians


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
    p50, p95, p99 = map(float, np.percentile(np.asarray(seconds) * 1000, [50, 95, 99]))
    return Timing(p50, p95, p99, len(seconds))
