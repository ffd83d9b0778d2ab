"""Size, speed and accuracy of fp32, fp16 and int8 for trained runs, as a Markdown table.

    python scripts/bench_precision.py runs/pets [runs/other …] [--threads 2] [--precision int8]

Each run is exported into a temporary folder and judged on all its validation photos, whatever
accuracy it loses. Latency is that of the model alone, one resized picture at a time: the minimum
over many rounds. In each round every precision runs a few times in a row, its weights in the
processor's cache, as on a device that runs nothing else. Size and speed are the same for any
weights. For networks trained from random weights (--weights none) the accuracy says nothing, so
those columns stay empty.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgetl import Predictor
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.photo_selection import calibration_photos, run_data
from edgetl.exporting.precision.reduced_precision import PrecisionSettings
from edgetl.training.models import checkpoint
from edgetl.training.models.checkpoint import Trained

HEADER = (
    "backbone",
    "precision",
    "MB",
    "× fp32",
    "ms",
    "speed-up",
    "accuracy",
    "same label",
    "points lost by a class",
)
PRECISIONS = ("fp32", "fp16", "int8")
BURST = 5  # runs in a row


def export(trained: Trained, folder: Path, precisions: Sequence[str]) -> dict[str, Any]:
    """Export ``trained`` → the bundle's manifest."""
    data = run_data(
        trained.settings, trained.card, "smaller precisions", "Put the data back where it was."
    )
    validation = [(sample.path, sample.label) for sample in data.val]
    calibration = calibration_photos([sample.path for sample in data.train], 100)
    settings = PrecisionSettings(calibration, validation, max_accuracy_drop=100)
    result = export_bundle(
        Deployment(trained.network, trained.card),
        folder,
        golden=[],
        formats=["onnx"],
        precisions=["fp32", *precisions],
        precision_settings=settings,
    )
    return dict(json.loads((result.folder / "manifest.json").read_bytes()))


def latencies(
    folder: Path, precisions: Iterable[str], threads: int, rounds: int
) -> dict[str, float]:
    """Minimum seconds of one run of each model, in the predictor, on a picture already resized."""
    predictors = {
        name: Predictor(folder, providers="cpu", threads=threads, precision=name)
        for name in precisions
    }
    spec = next(iter(predictors.values())).card.spec
    picture = np.random.default_rng(0).integers(
        0, 256, (1, *spec.output_size(256, 256), 3), np.uint8
    )
    best = dict.fromkeys(predictors, float("inf"))
    for _ in range(rounds):
        for name, predictor in predictors.items():
            for _ in range(BURST):
                start = time.perf_counter()
                predictor.run_model(picture)
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def rows(
    trained: Trained, manifest: dict[str, Any], seconds: dict[str, float]
) -> list[tuple[str, ...]]:
    """One row of the table for each precision."""
    pretrained = trained.settings.get("weights") != "none"
    models = manifest["models"]
    sizes = {
        name: manifest["files"][models[name]]["bytes"] for name in PRECISIONS if name in models
    }
    table = []
    for name, size in sizes.items():
        speed = (f"{seconds[name] * 1e3:.2f}", f"{seconds['fp32'] / seconds[name]:.2f}")
        cost = accuracies(name, manifest["precisions"]) if pretrained else [""] * 3
        table.append(
            (
                trained.card.backbone,
                name,
                f"{size / 1e6:.2f}",
                f"{size / sizes['fp32']:.3f}",
                *speed,
                *cost,
            )
        )
    return table


def accuracies(precision: str, judged: dict[str, Any]) -> list[str]:
    """The last columns of a row."""
    if precision not in judged:
        return [f"{next(iter(judged.values()))['fp32_accuracy']:.2%}", "", ""]
    figures = judged[precision]
    floats = f" ({len(figures['float_layers'])} layers in float)" if figures["float_layers"] else ""
    return [
        f"{figures['accuracy']:.2%}{floats}",
        f"{figures['agreement']:.2%}",
        f"{max(figures['class_drops'].values()):.2f}",
    ]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders that edgetl train wrote")
    parser.add_argument("--threads", type=int, default=2, help="threads of onnxruntime")
    parser.add_argument("--rounds", type=int, default=50, help="rounds of the latency measurement")
    parser.add_argument(
        "--precision", action="append", choices=["fp16", "int8"], help="default: both"
    )
    arguments = parser.parse_args(words)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    vnni = "with VNNI" if "vnni" in flags else "without VNNI"
    print(
        f"onnxruntime {onnxruntime.__version__}, {arguments.threads} threads, "
        f"{platform.machine()} {vnni}\n"
    )
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|")
    for run in arguments.runs:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "bundle")
            trained = checkpoint.load(run)
            manifest = export(trained, folder, arguments.precision or ["fp16", "int8"])
            for row in rows(
                trained,
                manifest,
                latencies(folder, manifest["models"], arguments.threads, arguments.rounds),
            ):
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
