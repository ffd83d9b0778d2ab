"""``edgetl drift``: do today's photos look like those of the training? With onnxruntime alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli import NothingCompared
from edgetl.cli.options.list_options import list_options
from edgetl.cli.options.model_options import given_options, model_options
from edgetl.cli.options.option_types import Number, SomePath
from edgetl.cli.options.output_options import json_option
from edgetl.cli.options.report_file import ReportFile
from edgetl.cli.process import require_stdout
from edgetl.cli.terminal.terminal_text import json_text, padded, print_warnings, width
from edgetl.errors import EdgetlError
from edgetl.system.atomic_write import write_report_file
from edgetl.system.message_text import counted, printable

if TYPE_CHECKING:
    from edgetl.runtime.drift.drift_result import ClassDrift, DriftResult
    from edgetl.runtime.drift.unknown_share import UnknownShare

_MAX_CLASSES = 10  # rows of the table; the JSON and the page have all
_MAX_PHOTOS = 5
_LEAST_LEVEL = 0.003  # below which edgetl.drift can find no drift


@click.command(short_help="Ask whether photos still look like those of the training.")
@click.argument("bundle", type=SomePath())
@click.argument("photos", type=SomePath())
@list_options
@click.option(
    "--false-alarms",
    "level",
    type=Number(_LEAST_LEVEL, 1, max_open=True),
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="How often photos of the same kind may be called different.",
)
@json_option
@click.option("--html", type=ReportFile(), help="Write a report with figures and photos to FILE.")
@model_options
def command(bundle: Path, photos: Path, as_json: bool, html: Path | None, **options: Any) -> None:
    """Compare PHOTOS with the held-out photos of the training that BUNDLE describes, and estimate
    the accuracy on them without labels. PHOTOS is a folder or a list; or a .parquet or .jsonl file
    of answers that edgetl predict --embeddings --out collected.

    Exit code 0 if they look alike, 1 if they look different, 2 for wrong arguments or nothing to
    compare. Photos are compared within the label that they are given, so that another mix of
    classes, which is named, is no drift. Needs no torch.

    \b
    Example:
      edgetl drift exported/pets photos/today
      edgetl drift exported/pets answers.parquet --html drift.html
      edgetl drift exported/pets photos/today --false-alarms 0.01 --json
    """
    if as_json or html is None:
        require_stdout()
    try:
        result = _compare(bundle, photos, html, options)
        if html is not None:
            from edgetl.evaluation.drift_page import as_html

            write_report_file(html, as_html(result))
    except EdgetlError as error:
        raise NothingCompared(str(error)) from error
    click.echo(json_text(result.to_dict()) if as_json else "\n".join(_lines(result)))
    print_warnings(result.warnings)
    if html is not None:
        click.echo(f"html: {html}", err=True)
    sys.exit(1 if result.drifted else 0)


def _compare(bundle: Path, photos: Path, html: Path | None, options: dict[str, Any]) -> DriftResult:
    from edgetl.cli.terminal.progress_bar import show_progress
    from edgetl.runtime.drift.drift_run import drift

    if html is not None:  # say what is missing before the photos are classified
        from edgetl.evaluation.report_page import require_report_packages

        require_report_packages()
    with show_progress() as progress:
        return drift(bundle, photos, progress=progress, **given_options(options))


def _lines(result: DriftResult) -> Iterator[str]:
    found, accuracy = result.comparison, result.comparison.accuracy
    yield result.verdict
    each = ", ".join(f"{name} {value:.3f}" for name, value in found.p_values.items())
    yield (
        f"p-value {found.p_value:.3f} ({each}; mix of labels {found.mix_p_value:.3f}), "
        f"{counted(len(found.compared), 'photo')} compared with {len(result.known.labels):,} "
        "held-out ones"
    )
    low, high = accuracy.interval
    yield (
        f"Accuracy about {accuracy.value:.1%} ({low:.1%} to {high:.1%}), estimated without labels; "
        f"{accuracy.held_out:.1%} on the held-out photos"
    )
    if result.drifted:
        yield "Take that for the best case: of photos that look different, it is often too good."
    yield _unknown_line(result.unknown)
    if result.drifted or result.mix_changed:
        yield from _class_lines(result.classes)
    if result.drifted:
        yield "Photos that differ most in the same way:"
        for photo in result.photos[:_MAX_PHOTOS]:
            label = printable(photo.label)
            yield f"{photo.confidence:>10.2%}  {label}  {printable(photo.file)}"


def _unknown_line(found: UnknownShare) -> str:
    low, high = found.interval
    expected = f"{found.expected:.1%} of photos like those of the training would be"
    return (
        f"Unknown {found.share:.1%} ({low:.1%} to {high:.1%}), "
        f"{'more than chance explains: ' if found.is_higher else ''}{expected}"
    )


def _class_lines(classes: list[ClassDrift]) -> Iterator[str]:
    """A table, those that make most of the difference first."""
    shown = classes[:_MAX_CLASSES]
    column = max(5, *(width(printable(found.label)) for found in shown))
    yield f"{'label':<{column}}  photos   share  held out  of the difference"
    for found in shown:
        yield (
            f"{padded(printable(found.label), column)}  {found.photos:>6,}  {found.share:>6.1%}  "
            f"{found.held_out_share:>8.1%}  {found.part:>17.1%}"
        )
    if len(shown) < len(classes):
        yield f"… and {len(classes) - len(shown):,} more labels"
