"""Times the exact resize in an ONNX graph against Pillow's, and checks that the bits are equal.

    python scripts/bench_resize.py [--threads 2] [--seconds 2] [--torch]

Rounds alternate between the two, so that other load on the machine affects both; the median ratio
counts.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.resize_model import resize_model

from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.inference.session import open_session

HALF = (0.5, 0.5, 0.5)
SPECS = {
    "shorter 256, crop 224, bilinear": PreprocessSpec(
        "shorter_side", 256, "bilinear", (224, 224), HALF, HALF
    ),
    "shorter 256, crop 224, bicubic": PreprocessSpec(
        "shorter_side", 256, "bicubic", (224, 224), HALF, HALF
    ),
    "squash 224, bilinear": PreprocessSpec("squash", (224, 224), "bilinear", None, HALF, HALF),
}
SIZES = ((375, 500), (500, 375), (1080, 1920), (3000, 4000))  # height, width
TARGET = 2.0  # times Pillow's time


def photo(height: int, width: int) -> np.ndarray:
    """Noise on waves, uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 127.5 + 90 * np.sin(x / 17) * np.cos(y / 23)
    noise = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    return np.asarray((waves[:, :, None] + noise).clip(0, 255), np.uint8)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(runs: dict[str, Callable[[], object]], budget: float) -> dict[str, list[float]]:
    """Seconds of each run, in rounds that call every one once, for ``budget`` seconds."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(times[next(iter(runs))]) < 5:
        for name, run in runs.items():
            times[name].append(seconds(run))
    return times


def torchscript_resize(
    spec: PreprocessSpec, pixels: np.ndarray, threads: int
) -> Callable[[], np.ndarray]:
    import torch

    from edgetl.exporting.formats.torch_preprocess import Preprocess

    torch.set_num_threads(threads)
    module, images = Preprocess(spec), torch.from_numpy(pixels)[None]
    return lambda: module.resize(images).numpy()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--threads", type=int, default=2, help="threads of onnxruntime (Pillow uses one)"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each row")
    parser.add_argument("--torch", action="store_true", help="also the torch module")
    arguments = parser.parse_args()
    print(
        f"onnxruntime {onnxruntime.__version__}, {arguments.threads} threads; "
        f"Pillow {PIL.__version__}; {platform.machine()}"
    )
    for label, spec in SPECS.items():
        session = open_session(
            resize_model(spec).SerializeToString(), providers="cpu", threads=arguments.threads
        )
        for height, width in SIZES:
            pixels = photo(height, width)
            image = Image.fromarray(pixels)
            runs: dict[str, Callable[[], Any]] = {
                "Pillow": partial(resize_image, image, spec),
                "ONNX": partial(session.run, None, {"images": pixels[None]}),
            }
            if arguments.torch:
                runs["torch"] = torchscript_resize(spec, pixels, arguments.threads)
            expected, *results = (np.asarray(run()).reshape(-1) for run in runs.values())
            equal = all(np.array_equal(expected, result) for result in results)
            report(f"{label}, {width}×{height}", measure(runs, arguments.seconds), equal)


def report(label: str, times: dict[str, list[float]], equal: bool) -> None:
    pillow = times["Pillow"]
    figures = [
        f"{name} {statistics.median(values) * 1e3:.2f} ms (best {min(values) * 1e3:.2f})"
        for name, values in times.items()
    ]
    ratio = statistics.median(other / own for other, own in zip(times["ONNX"], pillow, strict=True))
    met = "" if ratio <= TARGET else f", above the target of {TARGET:g}"
    print(
        f"{label}: {', '.join(figures)}; ONNX/Pillow {ratio:.2f}{met}; "
        f"{'bits equal' if equal else 'BITS DIFFER'}"
    )


if __name__ == "__main__":
    main()
