"""Size, speed and accuracy of fp32, fp16 and int8 for trained runs, as a Markdown table.

    python scripts/bench_precision.py runs/pets [runs/other …] [--threads 2] [--photos 100] [--precision int8]

Each run is exported into a temporary folder and judged on all its validation photos, whatever it loses. Latency is the
model alone, one resized picture at a time: the least of many rounds, which alternate between the precisions, so that
other programs disturb all alike. Size and speed are the same for any weights; what was trained from random ones
(--weights none) has no accuracy worth a line, so those columns stay empty.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgetl.cli.run_photos import calibration_photos, run_data
from edgetl.export.bundle_writer import export_bundle
from edgetl.export.precisions import JudgedBy
from edgetl.runtime.session import open_session
from edgetl.runtime.spec import PreprocessSpec
from edgetl.training import checkpoint
from edgetl.training.checkpoint import Trained

HEADER = ("backbone", "precision", "MB", "× fp32", "ms", "speed-up", "accuracy", "same label", "points lost by a class")
PRECISIONS = ("fp32", "fp16", "int8")
WARM_UP = 5


def export(trained: Trained, folder: Path, precisions: Sequence[str]) -> dict[str, Any]:
    """Export ``trained`` → the bundle's manifest."""
    data = run_data(trained.settings, trained.card.labels, "smaller precisions", "Put the data back where it was.")
    validation = [(sample.path, sample.label) for sample in data.val]
    judged_by = JudgedBy(calibration_photos(data, 100), validation, max_accuracy_drop=100)
    bundle = export_bundle(
        trained.network,
        trained.card,
        folder,
        golden=[],
        formats=["onnx"],
        precisions=["fp32", *precisions],
        judged_by=judged_by,
    )
    return dict(json.loads((bundle / "manifest.json").read_bytes()))


def latencies(folder: Path, manifest: dict[str, Any], threads: int, rounds: int) -> dict[str, float]:
    """Least seconds of one run of each model, on a picture that needs no resize."""
    spec = PreprocessSpec.from_dict(manifest["card"]["spec"])
    height, width = spec.resized_size(224, 224)
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    sessions = {
        name: open_session(folder / file, providers="cpu", threads=threads) for name, file in manifest["models"].items()
    }
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(WARM_UP + rounds):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(["probabilities"], {"images": image})
            times[name].append(time.perf_counter() - start)
    return {name: min(values[WARM_UP:]) for name, values in times.items()}


def rows(trained: Trained, manifest: dict[str, Any], seconds: dict[str, float]) -> list[tuple[str, ...]]:
    """One row of the table for each precision."""
    pretrained = trained.settings.get("weights") != "none"
    models = manifest["models"]
    sizes = {name: manifest["files"][models[name]]["bytes"] for name in PRECISIONS if name in models}
    table = []
    for name, size in sizes.items():
        speed = (f"{seconds[name] * 1e3:.2f}", f"{seconds['fp32'] / seconds[name]:.2f}")
        cost = accuracies(name, manifest["precisions"]) if pretrained else [""] * 3
        table.append((trained.card.backbone, name, f"{size / 1e6:.2f}", f"{size / sizes['fp32']:.3f}", *speed, *cost))
    return table


def accuracies(precision: str, judged: dict[str, Any]) -> list[str]:
    """The last columns of a row."""
    if precision not in judged:
        return [f"{next(iter(judged.values()))['fp32_accuracy']:.2%}", "", ""]
    figures = judged[precision]
    floats = f" ({len(figures['float_layers'])} layers in float)" if figures["float_layers"] else ""
    return [f"{figures['accuracy']:.2%}{floats}", f"{figures['agreement']:.2%}", f"{max(figures['class_drops'].values()):.2f}"]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders that edgetl train wrote")
    parser.add_argument("--threads", type=int, default=2, help="threads of onnxruntime")
    parser.add_argument("--photos", type=int, default=100, help="rounds of the latency measurement")
    parser.add_argument("--precision", action="append", choices=["fp16", "int8"], help="default: both")
    arguments = parser.parse_args(words)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    vnni = "with VNNI" if "vnni" in flags else "without VNNI"
    print(f"onnxruntime {onnxruntime.__version__}, {arguments.threads} threads, {platform.machine()} {vnni}\n")
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|")
    for run in arguments.runs:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "bundle")
            trained = checkpoint.load(run)
            manifest = export(trained, folder, arguments.precision or ["fp16", "int8"])
            for row in rows(trained, manifest, latencies(folder, manifest, arguments.threads, arguments.photos)):
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
