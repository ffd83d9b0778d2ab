"""``edgetl import``: a network that was trained elsewhere, in; a run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgetl.cli.options.list_options import list_options
from edgetl.cli.options.model_options import given_options
from edgetl.cli.options.option_types import PhotoPlace
from edgetl.cli.options.output_options import output_option
from edgetl.cli.terminal.figures import accuracy_in_words
from edgetl.cli.terminal.progress_bar import show_progress
from edgetl.cli.terminal.terminal_text import print_warnings
from edgetl.system.message_text import counted, printable
from edgetl.system.paths import real_path
from edgetl.system.shell import shell_word
from edgetl.training.importing.import_result import ImportResult
from edgetl.training.importing.import_run import import_network

_OF_THE_SPEC = ("resize", "size", "crop", "interpolation", "mean", "std")  # of the options


def _side(text: str) -> int | tuple[int, int]:
    """Pixels: one number, or HEIGHTxWIDTH."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise click.BadParameter(f"{text!r} is neither a number of pixels nor HEIGHTxWIDTH.")
    return int(text) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


@click.command(short_help="Make a network that was trained elsewhere into a run.")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@output_option("Run to write.")
@click.option(
    "--labels",
    required=True,
    metavar="A,B,…|FILE",
    help="Class names in the order of the outputs, or a text file with one a line.",
)
@click.option(
    "--backbone",
    metavar="NAME",
    help="The architecture: a torchvision classifier, or timm/NAME.  [default: a TorchScript file]",
)
@click.option(
    "--images",
    type=PhotoPlace(),
    metavar="PHOTOS",
    help="Photos in folders named like the labels, or a list of them, to measure the accuracy on.",
)
@list_options
@click.option(
    "--resize",
    type=click.Choice(["shorter_side", "squash"]),
    help="How photos were resized.  [default: as published for the backbone, here and below]",
)
@click.option(
    "--size",
    type=_side,
    metavar="N|HxW",
    help="Length of the resized shorter side, or size, in pixels.",
)
@click.option(
    "--crop", type=_side, metavar="N|HxW", help="Centre crop after the resize, in pixels."
)
@click.option("--interpolation", type=click.Choice(["bilinear", "bicubic"]), help="Of the resize.")
@click.option("--mean", type=float, nargs=3, help="Of red, green and blue, for pixels of 0..1.")
@click.option("--std", type=float, nargs=3, help="Of red, green and blue, for pixels of 0..1.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in that folder.")
def command(file: Path, out: Path, labels: str, **options: Any) -> None:
    """Make FILE, a network that was trained elsewhere, into a run to export and check.

    FILE holds the weights of a network of torchvision or timm (.pth or .safetensors), or a whole
    network as TorchScript. The preprocessing must be the one that it was trained with; with
    --images, what looks like a mistake in it is named.

    \b
    Example:
      edgetl import ants.pth -o runs/ants --backbone resnet50 --labels ant,bee --images DATA/val
      edgetl import network.pt -o runs/ants --labels labels.txt --size 256 --crop 224
        --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225
    """
    spec = given_options({name: options.pop(name) for name in _OF_THE_SPEC})
    with show_progress() as progress:
        result = import_network(file, labels, spec, out=out, progress=progress, **options)
    print_warnings(result.warnings)
    _print_result(result)


def _print_result(result: ImportResult) -> None:
    click.echo(f"Network: {result.backbone}, {counted(len(result.labels), 'label')}")
    click.echo(f"Preprocessing: {result.spec}")
    for note in result.notes:
        click.echo(f"Note: {printable(note)}")
    golden = " --golden DIR"
    if result.metrics:
        click.echo(f"Accuracy {accuracy_in_words(result.metrics)}")
        golden = ""
    bundle = shell_word(f"exported/{real_path(result.folder).name}")
    click.echo(f"Next: edgetl export {shell_word(result.folder)} -o {bundle}{golden}")
