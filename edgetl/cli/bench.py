"""``edgetl bench``: how fast a model is on this device."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.list_options import list_options
from edgetl.cli.model_options import model_options, open_predictor
from edgetl.cli.printable import json_text
from edgetl.cli.process import require_stdout

if TYPE_CHECKING:
    from edgetl.runtime.inference.benchmark import BenchmarkResult
    from edgetl.runtime.inference.predictor import Predictor

_MAX_PHOTOS = 100


@click.command(short_help="Measure a model on this device.")
@click.argument("model", type=click.Path(exists=True))
@click.option(
    "--images",
    type=click.Path(exists=True),
    help="Folder or list of photos to measure with. [default: the golden ones]",
)
@list_options
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
def command(
    model: str,
    images: str | None,
    columns: str | None,
    root: Path | None,
    runs: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure how fast MODEL is on this device.

    Times decode, resize, model and the whole; a fresh process; and several numbers of threads and
    batch sizes. The figures are of one moment on one machine: keep other programs from running, and
    repeat.

    \b
    Example:
      edgetl bench exported/pets --images photos/
    """
    from edgetl.runtime.inference.benchmark import bench

    require_stdout()
    predictor = open_predictor(model, **options)
    photos = _photos(predictor, images, columns, root)
    result = bench(predictor, photos, runs=runs)
    click.echo(json_text(asdict(result)) if as_json else "\n".join(_lines(result)))


def _photos(
    predictor: Predictor, images: str | None, columns: str | None, root: Path | None
) -> list[Path]:
    from edgetl.runtime.images.photo_list import photos_in, refuse_list_options

    if images is not None:
        found = photos_in(images, columns=columns, root=root)[:_MAX_PHOTOS]
        photos = [photo.path for photo in found]
    else:
        refuse_list_options(None, columns, root)
        bundle = predictor.bundle
        photos = [bundle.file(golden.file) for golden in bundle.golden] if bundle else []
    if not photos:
        raise click.UsageError("There are no photos to measure with. Name a folder with --images.")
    return photos


def _lines(result: BenchmarkResult) -> list[str]:
    machine = result.machine
    tools = ", ".join(
        f"{name} {machine[name]}" for name in ("python", "onnxruntime", "numpy", "pillow")
    )
    runs = f"over {result.stages['total'].count} runs, {result.photos} photos"
    cold_memory, peak_memory = map(_megabytes, (result.cold_memory, result.peak_memory))
    fastest = min(result.threads, key=lambda threads: result.threads[threads])
    return [
        f"machine      {machine['processor']}, {machine['cores']} cores, {machine['system']}",
        f"software     {tools}, {machine['provider']}",
        "",
        f"{'ms':<10}{'p50':>9}{'p95':>9}{'p99':>9}   {runs}",
        *(
            f"{name:<10}{timing.p50:>9.2f}{timing.p95:>9.2f}{timing.p99:>9.2f}"
            for name, timing in result.stages.items()
        ),
        "",
        f"throughput   {result.throughput:.0f} photos/s",
        f"cold start   {result.cold_start:.2f} s from nothing to the first label, {cold_memory}",
        f"peak memory  {peak_memory} of this run",
        f"threads      {_by_count(result.threads)}  ms per run of the model; "
        f"fastest here: --threads {fastest}",
        f"batch        {_by_count(result.batches)}  ms per photo in the model",
    ]


def _by_count(values: dict[int, float]) -> str:
    return "  ".join(f"{count}: {value:.2f}" for count, value in values.items())


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:.0f} MB"
