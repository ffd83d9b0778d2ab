"""``edgetl export``: from a trained run to a bundle that runs elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgetl.cli.option_types import PRECISIONS, Number, SomePath
from edgetl.cli.printable import counted
from edgetl.cli.progress_bar import show_progress
from edgetl.errors import ExportError, ImageError
from edgetl.exporting.photo_selection import calibration_photos, golden_photos, run_data
from edgetl.runtime.bundle.bundle_folder import (
    DEFAULT_FORMATS,
    DEFAULT_PRECISION,
    FORMATS,
    MANIFEST,
)
from edgetl.system.shell import shell_word
from edgetl.training.config.run_folder import BEST, METRICS, refuse_photos_folder

if TYPE_CHECKING:
    from torch import nn

    from edgetl.data.image_folder import ImageFolders
    from edgetl.exporting.precision.reduced_precision import JudgedBy
    from edgetl.system.progress import Progress
    from edgetl.training.models.checkpoint import Trained

DEFAULT_GOLDEN = 8
DEFAULT_CALIBRATION = 100
DEFAULT_MAX_DROP = 0.5

_OTHER_PHOTOS = "Give other photos with --golden DIR, or leave them out with --golden 0."

_LARGE = 30_000_000  # parameters
_MOST_CLASSES, _MOST_LAYERS = 10, 3  # shown; the manifest has all


@click.command(short_help="Write a trained run as a bundle for the device.")
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--out",
    "--output",
    "output",
    required=True,
    type=SomePath(),
    help="Folder to write the bundle to.",
)
@click.option(
    "--golden",
    default=str(DEFAULT_GOLDEN),
    show_default=True,
    metavar="N|DIR",
    help="How many validation photos go along for the device's self-test, or a folder of photos to take; 0: none.",
)
@click.option(
    "--opset",
    type=int,
    help="ONNX opset version; by default the lowest that the network's operators allow.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(FORMATS),
    default=DEFAULT_FORMATS,
    show_default=True,
    help="What to write (pt2: a torch.export program); may be given more than once.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=PRECISIONS,
    default=(DEFAULT_PRECISION,),
    show_default=True,
    help="Precision of the ONNX model; may be given more than once, for several models in one bundle.",
)
@click.option(
    "--calibration",
    type=click.IntRange(min=1),
    default=DEFAULT_CALIBRATION,
    show_default=True,
    help="How many training photos show int8 the range of each value.",
)
@click.option(
    "--max-accuracy-drop",
    type=Number(0, 100),
    default=DEFAULT_MAX_DROP,
    show_default=True,
    help="Percentage points of validation accuracy that a smaller precision may lose.",
)
@click.pass_context
def command(
    context: click.Context,
    run: Path,
    output: Path,
    golden: str,
    opset: int | None,
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    calibration: int,
    max_accuracy_drop: float,
) -> None:
    """Write the model trained in RUN as a bundle: preprocessing, network, labels and golden photos in one folder.

    Every exported file must answer as the trained network before anything is put in place; an earlier bundle is
    replaced at once. A smaller precision is judged on all validation photos instead.

    \b
    Example:
      edgetl export runs/pets -o exported/pets
      edgetl export runs/pets -o exported/pets --precision fp32 --precision int8
    """
    _refuse_idle_options(context, formats, precisions)
    with show_progress() as working:
        written = _export(
            run, output, golden, opset, formats, precisions, calibration, max_accuracy_drop, working
        )
    _warn_of_an_unfinished(run)
    manifest = json.loads((written / MANIFEST).read_bytes())
    click.echo("\n".join(_lines(written, manifest)))
    from edgetl.exporting.precision.judge import LEAST_AGREEMENT

    for precision, judged in manifest["precisions"].items():
        if judged["agreement"] < LEAST_AGREEMENT:
            click.echo(
                f"Warning: {precision} answers {1 - judged['agreement']:.1%} of the photos otherwise than fp32; that its "
                "accuracy is kept may be an accident. Judge it by more photos, with edgetl check --against.",
                err=True,
            )


def _export(
    run: Path,
    output: Path,
    golden: str,
    opset: int | None,
    formats: Sequence[str],
    precisions: Sequence[str],
    calibration: int,
    max_accuracy_drop: float,
    working: Progress,
) -> Path:
    working("Loading PyTorch", 0, 0)
    from edgetl.exporting.bundle_writer import export_bundle
    from edgetl.training.models import checkpoint
    from edgetl.training.torch_env.torch_flags import one_thread

    working(f"Reading {run}", 0, 0)
    trained = checkpoint.load(run)
    if "data" in trained.settings:  # golden photos would be a class there
        refuse_photos_folder(output, trained.settings["data"])
    smaller = bool(set(precisions) - {DEFAULT_PRECISION}) and "onnx" in formats
    photos, data = _golden_photos(golden, trained)
    try:
        with one_thread(_is_small(trained.network)):
            return export_bundle(
                trained.network,
                trained.card,
                output,
                golden=photos,
                opset=opset,
                formats=formats,
                checkpoint=run / BEST if run.is_dir() else run,
                checkpoint_sha256=trained.sha256,
                precisions=precisions,
                judged_by=_judged_by(trained, data, calibration, max_accuracy_drop)
                if smaller
                else None,
                working=working,
            )
    except ImageError as error:
        if error.source not in map(str, photos):
            raise
        raise ExportError(
            f"A golden photo can't be used: {error.message}", _OTHER_PHOTOS
        ) from error


def _warn_of_an_unfinished(run: Path) -> None:
    if run.is_dir() and not (run / METRICS).exists():
        click.echo(
            f"Warning: {run} is not finished; these are its best weights so far, without a temperature.",
            err=True,
        )


def _refuse_idle_options(
    context: click.Context, formats: Sequence[str], precisions: Sequence[str]
) -> None:
    """Raises UsageError for an option that was given and would have no effect."""
    needs = {
        "opset": ("onnx" in formats, "--format onnx"),
        "precisions": ("onnx" in formats, "--format onnx"),
        "calibration": ("int8" in precisions, "--precision int8"),
        "max_accuracy_drop": (
            bool(set(precisions) - {DEFAULT_PRECISION}),
            "--precision fp16 or int8",
        ),
    }
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name, (met, needed) in needs.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and not met:
            raise click.UsageError(f"{flags[name]} has an effect only with {needed}.")


def _is_small(network: nn.Module) -> bool:
    """Whether one thread computes it nearly as fast as several: on a machine that is busy, many times as fast."""
    return sum(parameter.numel() for parameter in network.parameters()) < _LARGE


def _golden_photos(golden: str, trained: Trained) -> tuple[list[Path], ImageFolders | None]:
    """(the photos that ``--golden`` asks for; the run's data, if it was read for them)."""
    from edgetl.runtime.images.discovery import find_images

    if golden.isdecimal():
        count = int(golden)
        data = (
            run_data(trained.settings, trained.card, "golden photos", _OTHER_PHOTOS)
            if count
            else None
        )
        return (golden_photos(data, count) if data else []), data
    photos = (
        find_images(golden) if golden and Path(golden).is_dir() else []
    )  # of no name, it is not the current folder
    if not photos:
        raise click.UsageError(f"--golden {golden}: give a number, or a folder with photos in it.")
    return photos, None


def _judged_by(
    trained: Trained, data: ImageFolders | None, calibration: int, max_accuracy_drop: float
) -> JudgedBy:
    """data: the run's, if it was read already."""
    from edgetl.exporting.precision.reduced_precision import JudgedBy

    hint = "Put the data back where it was, or export with --precision fp32 alone."
    data = data or run_data(trained.settings, trained.card, "smaller precisions", hint)
    if len(data.val) != trained.card.data.get("val", len(data.val)):
        click.echo(
            f"Warning: {data.root} has {len(data.val):,} validation photos; the run had others.",
            err=True,
        )
    return JudgedBy(
        calibration=calibration_photos(data, calibration),
        validation=[(sample.path, sample.label) for sample in data.val],
        max_accuracy_drop=max_accuracy_drop,
    )


def _lines(bundle: Path, manifest: Mapping[str, Any]) -> Sequence[str]:
    models = [name for name in manifest["files"] if not name.startswith("golden/")]
    return [
        *(f"{bundle / name}  {manifest['files'][name]['bytes'] / 1e6:.2f} MB" for name in models),
        *(
            [f"{bundle / 'golden'}  {counted(len(manifest['golden']), 'photo')}"]
            if manifest["golden"]
            else ()
        ),
        *(
            f"{name}: resized pixels equal to the trained network's on {figures['photos']} pictures"
            + (
                f", probabilities within {figures['probabilities']:.1e}"
                if name not in manifest["precisions"]
                else ""
            )
            for name, figures in manifest["verification"].items()
        ),
        *(
            line
            for name, judged in manifest["precisions"].items()
            for line in _judged_lines(name, judged)
        ),
        f"Next: edgetl check {shell_word(bundle)} --images DIR",
    ]


def _judged_lines(precision: str, judged: Mapping[str, Any]) -> Sequence[str]:
    lines = [
        f"{precision}: accuracy {judged['accuracy']:.2%} (fp32 {judged['fp32_accuracy']:.2%}) on {judged['photos']} "
        f"validation photos, same label on {judged['agreement']:.2%}"
    ]
    worst = sorted(judged["class_drops"].items(), key=lambda item: -item[1])
    shown = [
        f"{json.dumps(label, ensure_ascii=False)} {drop + 0.0:.2f}"
        for label, drop in worst[:_MOST_CLASSES]
    ]
    more = f" … and {len(worst) - _MOST_CLASSES} more" if len(worst) > _MOST_CLASSES else ""
    lines.append(f"{precision}: points lost by class: {', '.join(shown)}{more}")
    if layers := judged["float_layers"]:
        more = f" … and {len(layers) - _MOST_LAYERS} more" if len(layers) > _MOST_LAYERS else ""
        lines.append(
            f"{precision}: {len(layers)} layers stayed in float: {', '.join(layers[:_MOST_LAYERS])}{more}"
        )
    return lines
