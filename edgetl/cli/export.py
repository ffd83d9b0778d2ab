"""``edgetl export``: from a trained run to a bundle that runs elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgetl.cli.options.list_options import list_options
from edgetl.cli.options.option_types import PRECISIONS, Number, PhotoPlace, SomePath
from edgetl.cli.options.output_options import output_option
from edgetl.cli.terminal.progress_bar import show_progress
from edgetl.cli.terminal.terminal_text import print_warnings
from edgetl.errors import EdgetlError
from edgetl.exporting.export_result import AccuracyComparison, ExportResult
from edgetl.exporting.export_run import (
    DEFAULT_CALIBRATION,
    DEFAULT_GOLDEN,
    DEFAULT_MAX_DROP,
    export,
)
from edgetl.runtime.bundle.bundle_folder import DEFAULT_FORMATS, DEFAULT_PRECISION, FORMATS, Bundle
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN
from edgetl.runtime.images.discovery import walk_images
from edgetl.runtime.images.photo_list import is_photo_list
from edgetl.system.message_text import counted, first_few, printable
from edgetl.system.shell import shell_word

_MAX_CLASSES, _MAX_LAYERS = 10, 3  # shown; the manifest has all


def _precisions_of_labels(
    _: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> dict[str | None, float]:
    """Label → precision; None: of the labels that are not named."""
    wanted: dict[str | None, float] = {}
    for value in values:
        label, equals, number = value.rpartition("=")
        try:
            precision = float(number)
        except ValueError:
            precision = math.nan
        if not 0 < precision < 1:
            raise click.UsageError(
                f"{option.opts[0]} {value}: give a share between 0 and 1, such as 0.99 or cat=0.99."
            )
        wanted[label if equals else None] = precision
    return wanted


def _number_or_folder(context: click.Context, option: click.Parameter, value: str) -> int | Path:
    if value.isdecimal():
        return int(value)
    # An empty name would be the current folder's.
    is_folder = value and Path(value).is_dir() and next(walk_images(value), None) is not None
    if not (is_folder or is_photo_list(value)):
        raise click.UsageError(
            f"--golden {value}: give a number, or a folder with photos in it, or a list of them."
        )
    return Path(value)


@click.command(short_help="Write a trained run as a bundle for the device.")
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@output_option("Folder to write the bundle to.")
@click.option(
    "--golden",
    default=str(DEFAULT_GOLDEN),
    show_default=True,
    callback=_number_or_folder,
    metavar="N|PHOTOS",
    help="Photos for the device's self-test: how many to validate on, or a folder or list of them.",
)
@click.option(
    "--opset",
    type=int,
    help="ONNX opset version; by default the lowest that the network's operators allow.",
)
@click.option(
    "--format",
    multiple=True,
    type=click.Choice(FORMATS),
    default=DEFAULT_FORMATS,
    show_default=True,
    help="What to write (pt2: a torch.export program); may be given more than once.",
)
@click.option(
    "--precision",
    multiple=True,
    type=PRECISIONS,
    default=(DEFAULT_PRECISION,),
    show_default=True,
    help="Precision of the ONNX model; may be given more than once, for several models.",
)
@click.option(
    "--calibration",
    type=click.IntRange(min=1),
    default=DEFAULT_CALIBRATION,
    show_default=True,
    help="How many training photos to calibrate int8 with.",
)
@click.option(
    "--calibration-images",
    type=PhotoPlace(),
    metavar="PHOTOS",
    help="Take them from this folder or list.  [default: the photos that the run was trained on]",
)
@click.option(
    "--judge-images",
    type=PhotoPlace(),
    metavar="PHOTOS",
    help="Judge a reduced precision on these class folders or this list, not on the run's photos.",
)
@list_options
@click.option(
    "--max-accuracy-drop",
    type=Number(0, 100),
    default=DEFAULT_MAX_DROP,
    show_default=True,
    help="Percentage points of validation accuracy that a reduced precision may lose.",
)
@click.option(
    "--precision-at",
    multiple=True,
    callback=_precisions_of_labels,
    metavar="[LABEL=]SHARE",
    help="Mark answers as unsure, so that this share of the others is right; may be repeated.",
)
@click.option(
    "--digests/--no-digests",
    default=True,
    show_default=True,
    help="List digests of the training photos, so that edgetl evaluate recognises them.",
)
@click.option(
    "--keep-known",
    type=Number(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of photos like the training photos that don't count as unknown.  "
    f"[default: {KEEP_KNOWN}]",
)
@click.option(
    "--unknown/--no-unknown",
    default=True,
    show_default=True,
    help="Let the model tell unknown photos, and include answers for held-out photos.",
)
@click.option(
    "--maps", is_flag=True, help="Let the ONNX models say where they looked, for edgetl explain."
)
@click.option(
    "--web", is_flag=True, help="Add a page to host as it is, with a module for browsers and Node."
)
@click.option(
    "--ort",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Copy onnxruntime-web from this npm package.  [default: the page takes it from a CDN]",
)
@click.option(
    "--triton",
    type=SomePath(),
    metavar="DIR",
    help="Write the model to this repository of NVIDIA Triton, too.",
)
@click.pass_context
def command(context: click.Context, /, run: Path, out: Path, **options: Any) -> None:
    """Write the model trained in RUN as a bundle: one folder with preprocessing, network, labels
    and golden photos.

    Every exported file must give the trained network's answers before anything is put in place; an
    earlier bundle is then replaced in one step. A reduced precision must keep the accuracy on all
    validation photos instead.

    With --precision-at, the bundle says from which confidence on answers are right that often, with
    95 % certainty, as measured on photos that fitted nothing. edgetl predict marks the others.

    \b
    Example:
      edgetl export runs/pets -o exported/pets
      edgetl export runs/pets -o exported/pets --precision fp32 --precision int8
      edgetl export runs/pets -o exported/pets --precision-at 0.99 --precision-at cat=0.999
      edgetl export runs/pets -o exported/pets --web
    """
    _refuse_unused_options(context)
    try:
        with show_progress() as progress:
            result = export(run, out, progress=progress, **options)
    except EdgetlError as error:
        print_warnings(getattr(error, "__notes__", ()))
        raise
    print_warnings(result.warnings)
    click.echo("\n".join(map(printable, _lines(result))))
    if options["triton"] is not None:
        click.echo(f"{options['triton'] / result.folder.name}  a model for Triton")


def _refuse_unused_options(context: click.Context) -> None:
    """Raises UsageError for an option that was given and would have no effect."""
    given = context.params
    onnx = ("onnx" in given["format"], "--format onnx")
    int8 = ("int8" in given["precision"], "--precision int8")
    reduced = ({*given["precision"]} != {DEFAULT_PRECISION}, "--precision fp16 or int8")
    requirements = {
        **dict.fromkeys(("opset", "precision", "maps", "web"), onnx),
        "ort": (given["web"], "--web"),
        "triton": onnx,
        **dict.fromkeys(("calibration", "calibration_images"), int8),
        **dict.fromkeys(("judge_images", "max_accuracy_drop"), reduced),
        "keep_known": (given["unknown"], "--unknown"),
    }
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name, (is_met, required) in requirements.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and not is_met:
            raise click.UsageError(f"{flags[name]} has an effect only with {required}.")


def _lines(result: ExportResult) -> Iterator[str]:
    for name, size in sorted(result.files.items()):
        if "/" not in name:
            yield f"{result.folder / name}  {size / 1e6:.2f} MB"
    if result.golden:
        yield f"{result.folder / 'golden'}  {counted(result.golden, 'photo')}"
    if web := [size for name, size in result.files.items() if name.startswith("web/")]:
        yield f"{result.folder / 'web'}  {counted(len(web), 'file')}, {sum(web) / 1e6:.2f} MB"
    for name, found in sorted(result.verification.items()):
        line = f"{name}: resized pixels equal to the trained network's on {found.photos} pictures"
        if name not in result.precisions:
            line += f", probabilities within {found.probabilities:.1e}"
        yield line
    for precision, compared in sorted(result.precisions.items()):
        yield from _accuracy_lines(precision, compared)
    yield from _sure_lines(Bundle.open(result.folder).card)
    yield f"Next: edgetl check {shell_word(result.folder)} --images DIR"


def _sure_lines(card: ModelCard) -> Iterator[str]:
    """From when on answers are sure, and how many are."""
    if card.promises is None:
        return
    for entry in card.promises.sure_answers:
        yield f"sure: {entry.text}"
    for share in card.promises.statement:
        if share.figure == "answered":
            yield f"{share.name}: {share.text}"


def _accuracy_lines(precision: str, compared: AccuracyComparison) -> Iterator[str]:
    yield (
        f"{precision}: accuracy {compared.accuracy:.2%} (fp32 {compared.fp32_accuracy:.2%}) on "
        f"{compared.photos} validation photos, same label on {compared.agreement:.2%}"
    )
    if compared.sure_agreement is not None:
        yield (
            f"{precision}: same sure answer, or none, on {compared.sure_agreement:.2%}: what is "
            "promised of sure answers may be off by the rest"
        )
    if compared.trained_on:
        yield (
            f"{precision}: the network was trained on {compared.trained_on} of these photos, so "
            "both accuracies look better than they are: --judge-images DIR names others"
        )
    worst = sorted(compared.class_drops.items(), key=lambda drop: (-drop[1], drop[0]))
    drops = [f"{json.dumps(label, ensure_ascii=False)} {drop + 0.0:.2f}" for label, drop in worst]
    yield f"{precision}: points lost by class: {', '.join(first_few(drops, _MAX_CLASSES))}"
    if compared.portable_bits:
        yield f"{precision}: logits are the same bits on every CPU"
    elif compared.why_not_portable:
        yield f"{precision}: logits may differ between CPUs: {compared.why_not_portable}"
    if layers := compared.float_layers:
        named = ", ".join(first_few(layers, _MAX_LAYERS))
        yield f"{precision}: {len(layers)} layers stayed in float: {named}"
