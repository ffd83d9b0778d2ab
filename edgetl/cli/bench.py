"""``edgetl bench``: how fast a model is on this device."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.model_options import model_options, open_predictor
from edgetl.cli.printable import json_text

if TYPE_CHECKING:
    from edgetl.runtime.inference.benchmark import Bench
    from edgetl.runtime.inference.predictor import Predictor

_MOST_PHOTOS = 100


@click.command(short_help="Measure a model on this device.")
@click.argument("model", type=click.Path(exists=True))
@click.option(
    "--images",
    type=click.Path(exists=True),
    help="Folder of photos to measure with. [default: the golden ones]",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How often each stage is timed.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON to standard output instead of text."
)
@model_options
def command(model: str, images: str | None, runs: int, as_json: bool, **options: Any) -> None:
    """Measure MODEL on this device: decode, resize and model apart, the whole, a fresh process, threads, batches.

    The figures are of one moment on one machine: keep other programs from running, and repeat.

    \b
    Example:
      edgetl bench exported/pets --images photos/
    """
    from edgetl.runtime.inference.benchmark import bench

    predictor = open_predictor(model, **options)
    measured = bench(predictor, _photos(predictor, images), runs=runs)
    click.echo(json_text(asdict(measured)) if as_json else "\n".join(_lines(measured)))


def _photos(predictor: Predictor, images: str | None) -> list[Path]:
    from edgetl.runtime.images.discovery import find_images

    if images is not None:
        photos = [Path(images)] if Path(images).is_file() else find_images(images)[:_MOST_PHOTOS]
    else:
        bundle = predictor.bundle
        photos = [bundle.file(golden.file) for golden in bundle.golden] if bundle else []
    if not photos:
        raise click.UsageError("There are no photos to measure with. Name a folder with --images.")
    return photos


def _lines(measured: Bench) -> list[str]:
    machine = measured.machine
    tools = ", ".join(
        f"{name} {machine[name]}" for name in ("python", "onnxruntime", "numpy", "pillow")
    )
    return [
        f"machine      {machine['processor']}, {machine['cores']} cores, {machine['system']}",
        f"software     {tools}, {machine['provider']}",
        "",
        f"{'ms':<10}{'p50':>9}{'p95':>9}{'p99':>9}   over {measured.stages['total'].count} runs, {measured.photos} photos",
        *(
            f"{name:<10}{t.p50:>9.2f}{t.p95:>9.2f}{t.p99:>9.2f}"
            for name, t in measured.stages.items()
        ),
        "",
        f"throughput   {measured.throughput:.0f} photos/s",
        f"cold start   {measured.cold_start:.2f} s from nothing to the first label, {_megabytes(measured.cold_memory)}",
        f"peak memory  {_megabytes(measured.peak_memory)} of this run",
        f"threads      {_sweep(measured.threads)}  ms a run of the model; fastest here: --threads {_fastest(measured.threads)}",
        f"batch        {_sweep(measured.batches)}  ms a photo in the model",
    ]


def _fastest(values: dict[int, float]) -> int:
    return min(values, key=lambda key: values[key])


def _sweep(values: dict[int, float]) -> str:
    return "  ".join(f"{key}: {value:.2f}" for key, value in values.items())


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:.0f} MB"
