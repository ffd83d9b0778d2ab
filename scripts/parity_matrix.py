#!/usr/bin/env python
"""Export backbones of every family, check them, and print the largest differences as Markdown.

    python scripts/parity_matrix.py                              # all of them, on made-up photos
    python scripts/parity_matrix.py --images DIR resnet18 swin_t

The weights are random. By themselves, they would give nearly the same answer to every photo. So the
statistics of the batch norms are taken from the photos, as in training, and the head is centred and
scaled until its logits have mean 0 over the photos and standard deviation 3: probabilities then
range from nearly 0 to nearly 1. Exit code 1 if any check fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from edgetl.errors import EdgetlError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.parity.check_photos import find_photos
from edgetl.parity.comparison.runtime_comparison import compare_runtimes, threads_each
from edgetl.parity.results import CheckResult, RuntimeResult
from edgetl.parity.runtimes import Subject
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import normalize, resize_image
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build

BACKBONES = (
    "efficientnet_lite0",
    "resnet18",
    "resnet50",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "vit_b_16",
    "convnext_tiny",
    "swin_t",
    "timm/vit_tiny_patch16_224",
    "timm/mobilenetv4_conv_small",
    "timm/convnext_atto",
)
CLASSES = 10
LOGIT_SPREAD = 3.0  # standard deviation over photos and classes
MADE_UP_SIZES = (
    *((375, 500), (500, 375), (224, 224), (640, 480)),
    *((97, 301), (1200, 900), (256, 256), (333, 500)),
)
CALIBRATION_PHOTOS = 16


def main() -> int:
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="edgetl-matrix-") as scratch:
        images = arguments.images or make_up_photos(Path(scratch) / "photos")
        root, found = find_photos(images)
        photos = [photo.path for photo in found][: arguments.photos]
        results: dict[str, CheckResult] = {}
        for name in arguments.backbones:
            started = time.perf_counter()
            try:
                results[name] = check_backbone(name, photos, root, Path(scratch))
                outcome = "passed" if results[name].passed else results[name].failures
            except EdgetlError as error:
                outcome = error.message
            print(f"{name}: {outcome} in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if results:
        print("\n".join(table(results)))
    passed = [name for name, result in results.items() if result.passed]
    return 0 if len(passed) == len(arguments.backbones) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="The largest differences between runtimes, for every backbone family."
    )
    parser.add_argument(
        "backbones", nargs="*", default=BACKBONES, help="names as in `edgetl train --backbone`"
    )
    parser.add_argument("--images", type=Path, help="folder of photos; none: photos are made up")
    parser.add_argument(
        "--photos", type=int, default=16, help="use at most this many (%(default)s)"
    )
    return parser.parse_args()


def check_backbone(name: str, photos: Sequence[Path], root: Path, scratch: Path) -> CheckResult:
    """Export ``name`` with random weights, and compare all its runtimes on ``photos``."""
    torch.manual_seed(0)
    backbone = build(name, CLASSES, weights="none")
    labels = tuple(f"class {i}" for i in range(CLASSES))
    card = ModelCard(labels, backbone.spec, name, temperature=1.2)
    pixels = [resize_image(read_image(path), card.spec) for path in photos[:CALIBRATION_PHOTOS]]
    calibrate(backbone, torch.from_numpy(normalize(np.stack(pixels), card.spec)))
    network = backbone.module.eval()
    folder = scratch / name.replace("/", "-")
    bundle = export_bundle(Deployment(network, card), folder, golden=()).folder
    subject = Subject.open(bundle, network, card, threads=threads_each())
    return compare_runtimes(subject, photos, root)


def calibrate(backbone: Backbone, inputs: torch.Tensor) -> None:
    """Give the network the statistics that training would: see the top of this file."""
    network = backbone.module
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the mean over all batches
        network.train()(inputs)
        logits = network.eval()(inputs)
        head: Any = network.get_submodule(backbone.head)
        scale = LOGIT_SPREAD / (logits - logits.mean(0)).std()
        bias = torch.zeros(CLASSES) if head.bias is None else head.bias
        head.bias = nn.Parameter((bias - logits.mean(0)) * scale)
        head.weight.mul_(scale)


def make_up_photos(folder: Path) -> Path:
    """Sixteen pictures with smooth parts, edges and noise, in the sizes that photos have."""
    folder.mkdir()
    for number in range(2 * len(MADE_UP_SIZES)):
        height, width = MADE_UP_SIZES[number % len(MADE_UP_SIZES)]
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        kind = Image.Resampling.BICUBIC if number % 2 else Image.Resampling.NEAREST
        noise = rng.normal(0, 10, (height, width, 3))
        values = (np.asarray(coarse.resize((width, height), kind)) + noise).clip(0, 255)
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{number:02}.jpg", quality=92)
    return folder


def table(results: Mapping[str, CheckResult]) -> list[str]:
    """Markdown: a row for each backbone, a column for each runtime that ran anywhere."""
    checks = list(results.values())
    ran = [
        run.name
        for run in checks[0].runtimes
        if any(_find(result, run.name).stages for result in checks)
    ]
    rows = [["backbone", "resized pixels", *ran, "flips"], ["---"] * (len(ran) + 3)]
    for name, result in results.items():
        runs = [_find(result, runtime) for runtime in ran]
        resized = [stage for run in runs if (stage := run.stage("resized"))]
        equal = "equal" if all(stage.differing == 0 for stage in resized) else "**differ**"
        flips = sum(len(run.decisions.flips) for run in runs if run.status != "shown")
        rows.append([f"`{name}`", equal, *map(_cell, runs), str(flips)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _find(result: CheckResult, name: str) -> RuntimeResult:
    return next(run for run in result.runtimes if run.name == name)


def _cell(run: RuntimeResult) -> str:
    """Largest difference of logits, then of probabilities."""
    stages = [run.stage("logits"), run.stage("probabilities")]
    text = ", ".join(
        f"{stage.worst.largest:.0e}".replace("0e+00", "0") if stage else "?" for stage in stages
    )
    return f"**{run.reason}**" if run.status == "failed" else text


if __name__ == "__main__":
    sys.exit(main())
