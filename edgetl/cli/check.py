"""``edgetl check``: does an export answer as the trained network does, in every runtime?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli import NothingCompared
from edgetl.cli.options.list_options import list_options
from edgetl.cli.options.option_types import PRECISIONS, Number, SomePath
from edgetl.cli.options.report_file import ReportFile, given_files, written_reports
from edgetl.cli.terminal.progress_bar import show_progress
from edgetl.errors import (
    CheckpointError,
    DataError,
    MissingDependencyError,
    NoSuchModelError,
    ParityError,
)
from edgetl.system.missing_package import explain_missing_packages

if TYPE_CHECKING:
    from edgetl.parity.results import AgainstResult, CheckResult

_ON_A_DEVICE = "On a device, edgetl selftest compares with the answers that the bundle holds."


@click.command(short_help="Compare an export with the trained network, in every runtime.")
@click.argument("bundle", type=SomePath())
@click.option(
    "--images", type=SomePath(), required=True, help="Photos: a folder, a list or a file."
)
@list_options
@click.option(
    "--checkpoint", type=SomePath(), help="The trained run. [default: the one that BUNDLE names]"
)
@click.option(
    "--runtime",
    "runtime",
    multiple=True,
    metavar="NAME",
    help="Only this runtime, which must run; repeatable.",
)
@click.option(
    "--precision",
    type=PRECISIONS,
    help="The bundle's model to check; of a lone file, its precision.",
)
@click.option(
    "--tolerance",
    type=Number(0, 1),
    help="Largest difference of a probability. [default: 1e-4; fp16 2.5e-2, int8 0.25]",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Compare only so many photos, evenly spread."
)
@click.option("--against", type=SomePath(), help="Compare with this bundle; needs no checkpoint.")
@click.option(
    "--max-accuracy-drop",
    type=Number(max=100),
    metavar="POINTS",
    help="With --against: fail if more accuracy is lost.",
)
@click.option("--json", type=ReportFile(), help="Write every figure to FILE as JSON.")
@click.option("--junit", type=ReportFile(), help="Write JUnit XML for a CI system to FILE.")
@click.option("--html", type=ReportFile(), help="Write an HTML report with photos to FILE.")
def command(
    bundle: Path,
    images: Path,
    json: Path | None,
    junit: Path | None,
    html: Path | None,
    **options: Any,
) -> None:
    """Compare BUNDLE with the network that it was exported from, stage by stage, in every runtime
    that is installed. Needs the extra train.

    BUNDLE is a bundle folder or a lone model.onnx. Exit code 0 if everything that was asked for ran
    and passed, 1 if something differs or a bundle is damaged, 2 for wrong arguments or nothing to
    compare.

    Runtimes: torchscript, torchscript-fresh, pt2, onnxruntime-cpu, onnxruntime-unoptimized, batch,
    onnxruntime-cuda, onnxruntime-cuda-tf32 (for information only), openvino, predictor,
    arm64 (only where it is asked for), cpp, node, chromium, firefox.

    \b
    Example:
      edgetl check exported/pets --images photos/
      edgetl check exported/pets --images photos/ --html report.html --junit report.xml
      edgetl check exported/new --against exported/old --images DATA/val --max-accuracy-drop 0.5
    """
    files = given_files(json=json, junit=junit, html=html)
    try:
        result = _compare(bundle, images, options)
    except click.ClickException as error:
        if junit:  # a CI system shows what it finds there, or else an earlier run's
            from edgetl.parity.reports.junit_report import error_as_junit
            from edgetl.system.atomic_write import write_report_file

            name = f"edgetl check {bundle}"
            write_report_file(junit, error_as_junit(name, error.format_message()))
        raise
    _report(result, files)
    sys.exit(0 if result.passed else 1)


def _compare(bundle: Path, images: Path, options: dict[str, Any]) -> CheckResult | AgainstResult:
    """Raises UsageError, NothingCompared."""
    if options["against"] and (options["runtime"] or options["checkpoint"]):
        raise click.UsageError(
            "--against compares two bundles: it takes no --runtime and no --checkpoint."
        )
    if options["max_accuracy_drop"] is not None and not options["against"]:
        raise click.UsageError("--max-accuracy-drop needs --against, the bundle to compare with.")
    try:
        with explain_missing_packages("edgetl check"), show_progress() as progress:
            import rich.console  # noqa: F401  if it is missing, say so before the comparison

            from edgetl.parity.check_model import check

            result: CheckResult | AgainstResult = check(
                bundle, images, progress=progress, **options
            )
            return result
    except (CheckpointError, DataError, NoSuchModelError, ParityError) as error:
        raise NothingCompared(str(error)) from error
    except MissingDependencyError as error:
        raise NothingCompared(f"{error}\n{_ON_A_DEVICE}") from error


def _report(result: CheckResult | AgainstResult, files: dict[str, Path]) -> None:
    """Write ``files`` (kind → path), and print the result."""
    from edgetl.cli.terminal.check_display import show
    from edgetl.cli.terminal.rich_console import open_console
    from edgetl.parity.reports.html_report import as_html
    from edgetl.parity.reports.json_report import as_json
    from edgetl.parity.reports.junit_report import as_junit

    with written_reports(result, files, {"json": as_json, "junit": as_junit, "html": as_html}):
        show(result, open_console())
