"""``edgetl evaluate``: how good is a model on labelled photos? With onnxruntime alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.options.list_options import list_options
from edgetl.cli.options.model_options import given_options, model_options
from edgetl.cli.options.option_types import PhotoPlace
from edgetl.cli.options.report_file import ReportFile, given_files, written_reports
from edgetl.cli.process import require_stdout
from edgetl.cli.terminal.figures import accuracy_in_words
from edgetl.cli.terminal.terminal_text import padded, print_warnings, width
from edgetl.system.message_text import counted, printable

if TYPE_CHECKING:
    from edgetl.evaluation.evaluation_result import EvaluationResult
    from edgetl.evaluation.metrics import ClassMetrics

_MAX_CLASSES = 30  # rows of the table; the JSON and HTML reports have all
_MAX_MISTAKES = 5


@click.command(short_help="Measure a model on labelled photos that it has not seen.")
@click.argument("model", type=click.Path(exists=True))
@click.argument("photos", type=PhotoPlace())
@list_options
@click.option("--html", type=ReportFile(), help="Write a report with figures and photos to FILE.")
@click.option("--json", type=ReportFile(), help="Write every figure to FILE as JSON.")
@click.option("--csv", type=ReportFile(), help="Write a row for each photo to FILE.")
@model_options
def command(
    model: str, photos: Path, html: Path | None, json: Path | None, csv: Path | None, **options: Any
) -> None:
    """Classify PHOTOS with MODEL, a bundle folder or a lone model.onnx, and compare with their
    labels. PHOTOS is a folder of class folders, a list with columns path and label, or shards with
    labels, also in a store (s3://…); where photos are marked as test, these are taken.

    Prints precision, recall and F1 of each class, the accuracy with its 95 % interval, and the most
    confident mistakes. Photos that the model was trained on are named. Photos that can't be read,
    and those without a label of the model, are named and left out; the exit code is then 1. Needs
    no torch.

    \b
    Example:
      edgetl evaluate exported/pets DATA/test
      edgetl evaluate exported/pets DATA/test --html test.html --csv test.csv
      edgetl evaluate exported/pets test.csv --columns path=file,label=class
    """
    from edgetl.cli.terminal.progress_bar import show_progress
    from edgetl.evaluation.evaluation_reports import as_csv, as_html, as_json
    from edgetl.evaluation.evaluation_run import evaluate

    files = given_files(html=html, json=json, csv=csv)
    if not files:
        require_stdout()
    if html is not None:  # say what is missing before the photos are classified
        from edgetl.evaluation.report_page import require_report_packages

        require_report_packages()
    with show_progress() as progress:
        result = evaluate(model, photos, progress=progress, **given_options(options))
    with written_reports(result, files, {"html": as_html, "json": as_json, "csv": as_csv}):
        _print_result(result)
    sys.exit(1 if result.left_out else 0)


def _print_result(result: EvaluationResult) -> None:
    print_warnings(result.warnings)
    _print_classes(result.classes)
    metrics = result.metrics
    click.echo(
        f"Accuracy {accuracy_in_words(metrics)}, loss {metrics['loss']:.4f}, "
        f"calibration error {metrics['calibration_error']:.1%}"
    )
    _print_statement(result)
    mistakes = result.mistakes
    if mistakes:
        click.echo(f"{counted(len(mistakes), 'mistake')}, the most confident first:")
    for photo in mistakes[:_MAX_MISTAKES]:
        labels = f"{printable(photo.truth)} → {printable(photo.label)}"
        click.echo(f"{photo.confidence:>10.2%}  {labels}  {printable(photo.file)}")


def _print_statement(result: EvaluationResult) -> None:
    """What the model states about its answers, beside what was found."""
    names = [printable(check.stated.name) for check in result.statement]
    if not names:
        return
    column = max(map(width, names))
    click.echo(f"{'stated by the model':<{column}}  {'stated':<24}    here")
    for name, check in zip(names, result.statement, strict=True):
        found = f"{check.found.share:>6.1%}{'' if check.holds else '  lower'}"
        click.echo(f"{padded(name, column)}  {check.stated.text:<24}  {found}")


def _print_classes(classes: tuple[ClassMetrics, ...]) -> None:
    """A table in the order of the labels; of many classes, those with the lowest F1."""
    shown = list(classes)
    if len(classes) > _MAX_CLASSES:
        shown.sort(key=lambda found: 2 if found.f1 is None else found.f1)
        shown = shown[:_MAX_CLASSES]
    column = max(5, *(width(printable(found.label)) for found in shown))
    click.echo(f"{'class':<{column}}  photos  precision  recall      F1")
    for found in shown:
        label = padded(printable(found.label), column)
        rates = (found.precision, found.recall, found.f1)
        precision, recall, f1 = ("–" if rate is None else f"{rate:.1%}" for rate in rates)
        click.echo(f"{label}  {found.photos:>6,}  {precision:>9}  {recall:>6}  {f1:>6}")
    if len(shown) < len(classes):
        click.echo(f"… and {len(classes) - len(shown):,} classes with a higher F1")
