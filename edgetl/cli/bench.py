"""``edgetl bench``: how fast a model is on this device."""

from __future__ import annotations

import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.options.list_options import list_options
from edgetl.cli.options.model_options import given_options, model_options, open_predictor
from edgetl.cli.options.option_types import PhotoPlace, SomePath
from edgetl.cli.options.output_options import json_option
from edgetl.cli.process import require_stdout
from edgetl.cli.terminal.progress_bar import show_progress
from edgetl.cli.terminal.terminal_text import json_text
from edgetl.system.atomic_write import write_report_file
from edgetl.system.message_text import printable
from edgetl.system.shell import shell_word

if TYPE_CHECKING:
    from edgetl.runtime.inference.benchmark import BenchmarkResult
    from edgetl.runtime.inference.device_profile import DeviceProfile
    from edgetl.runtime.inference.predictor import Predictor

_MAX_PHOTOS = 100
_RUNS, _RUNS_OF_CANDIDATES = 100, 20


@click.command(short_help="Measure a model on this device.")
@click.argument("model", type=click.Path(exists=True))
@click.option(
    "--images",
    type=PhotoPlace(),
    help="Folder or list of photos to measure with. [default: the golden ones]",
)
@list_options
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    help=f"How often each stage is timed. [default: {_RUNS}; {_RUNS_OF_CANDIDATES} of candidates]",
)
@click.option(
    "--profile",
    type=SomePath(),
    metavar="FILE",
    help="Of candidates: write the figures to this file, for edgetl train --profile.",
)
@json_option
@model_options
def command(
    model: str,
    images: Path | None,
    columns: str | None,
    root: Path | None,
    runs: int | None,
    profile: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure how fast MODEL is on this device.

    Times decode, resize, model and the whole; a fresh process; and several numbers of threads and
    batch sizes. The figures are of one moment on one machine: keep other programs from running, and
    repeat. MODEL may also be a file of edgetl candidates: then each model in it is measured, and
    --profile keeps the figures for edgetl train --budget.

    \b
    Example:
      edgetl bench exported/pets --images photos/
      edgetl bench candidates.zip --profile pi4.json
    """
    require_stdout()
    photos = _named_photos(images, columns, root)
    if zipfile.is_zipfile(model):
        measured = _measure_candidates(Path(model), photos, runs or _RUNS_OF_CANDIDATES, options)
        if profile is not None:
            write_report_file(profile, measured.to_json())
        text = measured.to_json() if as_json else "\n".join(_profile_lines(measured))
        click.echo(text.rstrip())
        if profile is not None and not as_json:
            words = f"edgetl train DATA --budget 15ms --profile {shell_word(profile)} -o RUN"
            click.echo(f"Next, where it is trained, with a time of yours: {words}")
        return
    if profile is not None:
        raise click.UsageError(f"--profile is for a file of edgetl candidates; {model} is none.")
    from edgetl.runtime.inference.benchmark import bench

    predictor = open_predictor(model, options)
    result = bench(predictor, photos or _golden_photos(predictor), runs=runs or _RUNS)
    click.echo(json_text(asdict(result)) if as_json else "\n".join(_lines(result)))


def _named_photos(images: Path | None, columns: str | None, root: Path | None) -> list[Path]:
    """Those in ``images``; none if no place is named."""
    from edgetl.runtime.images.photo_list import refuse_list_options
    from edgetl.runtime.images.photo_places import photos_in

    if images is None:
        refuse_list_options(None, columns, root)
        return []
    photos = [photo.path for photo in photos_in(images, columns=columns, root=root)]
    return _require(photos)[:_MAX_PHOTOS]


def _golden_photos(predictor: Predictor) -> list[Path]:
    bundle = predictor.bundle
    return _require([bundle.file(golden.file) for golden in bundle.golden] if bundle else [])


def _require(photos: list[Path]) -> list[Path]:
    if not photos:
        raise click.UsageError("There are no photos to measure with. Name a folder with --images.")
    return photos


def _measure_candidates(
    path: Path, photos: list[Path], runs: int, options: dict[str, Any]
) -> DeviceProfile:
    from edgetl.runtime.bundle.candidates_file import read_candidates_file
    from edgetl.runtime.inference.device_profile import measure

    precision = options.pop("precision")
    candidates = [
        candidate
        for candidate in read_candidates_file(path)
        if precision in (None, candidate.precision)
    ]
    if not candidates:
        raise click.UsageError(f"{path} holds no {precision or ''} model.")
    given = given_options(options)
    with show_progress() as progress:
        return measure(candidates, photos, runs=runs, options=given, progress=progress)


def _profile_lines(profile: DeviceProfile) -> list[str]:
    machine, threads = profile.machine, profile.threads or "one per core"
    return [
        f"machine   {machine['processor']}, {machine['cores']} cores, {machine['system']}",
        f"software  onnxruntime {machine['onnxruntime']}, {machine['provider']}, "
        f"threads: {threads}; photos: {profile.photos}",
        "",
        f"{'':<34}{'file to label':>15}{'network':>12}{'memory':>10}{'file':>10}",
        *(
            f"{printable(model.name):<34}{model.total_ms:>12.2f} ms{model.model_ms:>9.2f} ms"
            f"{_megabytes(model.memory):>10}{model.bytes / 1e6:>7.2f} MB"
            for model in profile.models
        ),
    ]


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
