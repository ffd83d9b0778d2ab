"""``edgetl selftest``: does this device give the trained model's answers?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from edgetl.cli.options.model_options import model_options, open_predictor
from edgetl.cli.options.option_types import Number
from edgetl.cli.options.output_options import json_option
from edgetl.cli.process import require_stdout
from edgetl.cli.terminal.terminal_text import json_text
from edgetl.system.message_text import printable


@click.command(short_help="Run a bundle's golden photos on this device and compare.")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--tolerance",
    type=Number(0, 1),
    help="Largest difference of a probability. [default: 1e-4; fp16 2.5e-2, int8 5e-2]",
)
@json_option
@model_options
def command(bundle: str, tolerance: float | None, as_json: bool, **options: Any) -> None:
    """Run BUNDLE's golden photos on this device and compare with the answers in the bundle.

    Prints which stage is the first that differs: files, decode, resized, logits, probabilities,
    embedding, ood_score or evidence. The exit code is 1 if any does. Needs no torch.

    \b
    Example:
      edgetl selftest exported/pets
    """
    if as_json:
        require_stdout()
    outcome = open_predictor(bundle, options).selftest(tolerance=tolerance)
    if as_json:
        values = {"passed": outcome.passed, "stage": outcome.stage, **asdict(outcome)}
        click.echo(json_text(values))
    else:
        for result in outcome.results:
            click.echo(printable(f"{result.stage or 'ok':<14} {result.file}  {result.detail}"))
        agreed = sum(result.stage is None for result in outcome.results)
        verdict = "passed" if outcome.passed else f"FAILED at {outcome.stage}"
        total = f"{agreed} of {len(outcome.results)} agree"
        click.echo(f"{verdict}: {total}, tolerance {outcome.tolerance:g} on probabilities")
    sys.exit(0 if outcome.passed else 1)
