"""``edgetl candidates``: untrained models, to be measured on a device."""

from __future__ import annotations

from pathlib import Path

import click

from edgetl.cli.options.output_options import output_option
from edgetl.cli.terminal.progress_bar import show_progress
from edgetl.system.message_text import counted
from edgetl.system.shell import shell_word


@click.command(short_help="Write untrained models to measure on a device.")
@click.argument("names", nargs=-1, metavar="[NAME[@SIZE]]...")
@output_option("File to write the models to.")
def command(names: tuple[str, ...], out: Path) -> None:
    """Write untrained models of several backbones, image sizes and precisions into one small file.

    Copied to the device and measured there by edgetl bench, they tell edgetl train --budget what
    fits. Without NAMEs they are efficientnet_lite0, 1 and 2 at 192 to 320 pixels, each in fp32 and
    int8; a NAME is a backbone as edgetl train takes it.

    \b
    Example:
      edgetl candidates -o candidates.zip
      edgetl candidates -o candidates.zip efficientnet_lite0 resnet18@224
    """
    from edgetl.training.config.candidate_names import parse_candidate

    wanted = [parse_candidate(name) for name in names]
    with show_progress() as progress:
        progress("Loading PyTorch", 0, 0)
        from edgetl.exporting.candidates import write_candidates

        candidates = write_candidates(out, wanted, progress)
    click.echo(f"{out}  {counted(len(candidates), 'model')}, {out.stat().st_size / 1e6:.2f} MB")
    click.echo(f"Next, on the device: edgetl bench {shell_word(out)} --profile profile.json")
