"""``edgetl check``: does the export answer as the trained network does, on real photos, in every runtime?"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.cli.missing_package import missing_package
from edgetl.cli.option_types import PRECISIONS, Number, SomePath
from edgetl.cli.progress_bar import show_progress
from edgetl.cli.report_file import ReportFile
from edgetl.errors import (
    BundleError,
    CheckpointError,
    DataError,
    EdgetlError,
    MissingDependencyError,
    NoSuchModelError,
    ParityError,
)
from edgetl.system.paths import real_path
from edgetl.system.progress import ProgressCounter
from edgetl.system.shell import shell_word

if TYPE_CHECKING:
    from edgetl.parity.results import AgainstResult, CheckResult
    from edgetl.runtime.bundle.bundle_folder import Bundle
    from edgetl.training.models.checkpoint import Trained

    Result = CheckResult | AgainstResult


_FILE_WIDTH = 120  # characters of the table where no window sets a width: a pipe, a CI log


class WrongUse(click.ClickException):
    """The question can't be put like this; nothing was compared."""

    exit_code = 2


@click.command(short_help="Compare an export with the trained network, in every runtime.")
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--images",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="Photos: a folder or a file.",
)
@click.option(
    "--checkpoint", type=SomePath(), help="The trained run. [default: the one BUNDLE names]"
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME",
    help="Only this runtime, which must run; repeatable.",
)
@click.option(
    "--precision",
    type=PRECISIONS,
    help="Which of the bundle's models to check; what a lone file is.",
)
@click.option(
    "--tolerance",
    type=Number(0, 1),
    help="Largest difference of a probability. [default: 1e-4; fp16 2.5e-2, int8 0.25]",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Compare only so many photos, evenly spread."
)
@click.option(
    "--against",
    type=click.Path(exists=True, path_type=Path),
    help="Compare with this bundle; needs no checkpoint.",
)
@click.option(
    "--max-accuracy-drop",
    type=Number(max=100),
    metavar="POINTS",
    help="With --against: fail if more accuracy is lost.",
)
@click.option("--json", "json_file", type=ReportFile(), help="Write every figure to FILE as JSON.")
@click.option(
    "--junit", "junit_file", type=ReportFile(), help="Write JUnit XML for a CI system to FILE."
)
@click.option("--html", "html_file", type=ReportFile(), help="Write a report to look at to FILE.")
def command(
    bundle: Path,
    images: Path,
    checkpoint: Path | None,
    runtimes: tuple[str, ...],
    precision: str | None,
    tolerance: float | None,
    limit: int | None,
    against: Path | None,
    max_accuracy_drop: float | None,
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
) -> None:
    """Compare BUNDLE with the network that it was exported from, stage by stage, in every runtime installed here.

    BUNDLE is a bundle folder or a lone model.onnx. Exit code 0 if all that was asked for ran and passed, 1 if
    something differs or a bundle is damaged, 2 if the question can't be put.

    Runtimes: torchscript, torchscript-fresh, pt2, onnxruntime-cpu, onnxruntime-unoptimized, batch, onnxruntime-cuda,
    onnxruntime-cuda-tf32 (shown, not judged), openvino, predictor.

    \b
    Example:
      edgetl check exported/pets --images photos/
      edgetl check exported/pets --images photos/ --html report.html --junit report.xml
      edgetl check exported/new --against exported/old --images DATA/val --max-accuracy-drop 0.5
    """
    if against and (runtimes or checkpoint):
        raise click.UsageError(
            "--against compares two bundles: it takes no --runtime and no --checkpoint."
        )
    named = [real_path(path) for path in (json_file, junit_file, html_file) if path]
    if len(set(named)) < len(named):
        raise click.UsageError("--json, --junit and --html each need a file of their own.")
    if max_accuracy_drop is not None and not against:
        raise click.UsageError(
            "--max-accuracy-drop needs --against: an accuracy falls from something."
        )
    try:
        import rich.console  # noqa: F401  what it takes to tell the result must not be missed in the end

        root, photos = _photos(images, limit)
        with show_progress() as shown:
            progress = ProgressCounter(shown, "Comparing photos", len(photos))
            if against:
                result: Result = _against(
                    bundle, against, root, photos, precision, max_accuracy_drop, tolerance, progress
                )
            else:
                result = _check(
                    bundle, checkpoint, root, photos, precision, runtimes, tolerance, progress
                )
    except (ParityError, DataError, MissingDependencyError, NoSuchModelError) as error:
        raise WrongUse(str(error)) from error
    except ModuleNotFoundError as error:
        raise WrongUse(str(missing_package(error, "check"))) from error
    _report(result, {"json": json_file, "junit": junit_file, "html": html_file})
    sys.exit(0 if result.passed else 1)


def _photos(images: Path, limit: int | None) -> tuple[Path, list[Path]]:
    from edgetl.parity.check_photos import find_photos

    root, photos = find_photos(images)
    if limit is not None and limit < len(photos):
        photos = [photos[i * len(photos) // limit] for i in range(limit)]
    return root, photos


def _against(
    bundle: Path,
    against: Path,
    root: Path,
    photos: list[Path],
    precision: str | None,
    max_accuracy_drop: float | None,
    tolerance: float | None,
    progress: Callable[[], None],
) -> AgainstResult:
    from edgetl.parity.against import compare_bundles, unopened
    from edgetl.runtime.inference.predictor import Predictor

    limits = {"max_accuracy_drop": max_accuracy_drop, "tolerance": tolerance}
    try:
        new, old = (
            Predictor(bundle, precision=precision if bundle.is_dir() else None),
            Predictor(against),
        )
        return compare_bundles(new, old, photos, root, progress=progress, **limits)
    except NoSuchModelError:
        raise
    except BundleError as error:
        return unopened(bundle, against, root, error)


def _check(
    bundle: Path,
    checkpoint: Path | None,
    root: Path,
    photos: list[Path],
    precision: str | None,
    runtimes: tuple[str, ...],
    tolerance: float | None,
    progress: Callable[[], None],
) -> CheckResult:
    from edgetl.parity.comparison import check, threads_each, unopened
    from edgetl.parity.runtimes import Subject
    from edgetl.runtime.bundle.bundle_folder import Bundle

    try:
        opened = Bundle.open(bundle) if bundle.is_dir() else None
        trained = _trained(bundle, opened, checkpoint)
        subject = Subject.open(
            bundle, trained.network, trained.card, precision=precision, threads=threads_each()
        )
    except NoSuchModelError:
        raise
    except BundleError as error:
        return unopened(bundle, root, error)
    return check(subject, photos, root, runtimes=runtimes, tolerance=tolerance, progress=progress)


def _trained(path: Path, bundle: Bundle | None, checkpoint: Path | None) -> Trained:
    """The network to compare with: the one asked for, or the one recorded in the manifest, if it still is the same file."""
    from edgetl.training.models.checkpoint import load

    recorded = bundle.manifest["checkpoint"] if bundle else None
    way_out = "Name the run that it was exported from with --checkpoint RUN."
    if checkpoint is None:
        if not recorded or not recorded["path"]:
            raise WrongUse(f"{path} does not say which checkpoint it was exported from.\n{way_out}")
        checkpoint = real_path(
            real_path(path) / recorded["path"]
        )  # as it was recorded: no way back leads through a link
        if not checkpoint.is_file():
            raise WrongUse(f"The checkpoint that was exported is gone: {checkpoint}.\n{way_out}")
    else:
        recorded = None
    try:
        trained = load(checkpoint)
    except CheckpointError as error:
        raise WrongUse(f"{error.message}\n{error.hint or way_out}") from error
    if recorded and recorded["sha256"] != trained.sha256:
        raise WrongUse(
            f"{checkpoint} is no longer the checkpoint that was exported (trained again?).\n"
            f"Export it again, or compare with it all the same with --checkpoint {shell_word(checkpoint)}"
        )
    return trained


def _report(result: Result, files: dict[str, Path | None]) -> None:
    """On the terminal, and into every file asked for."""
    from rich.console import Console

    from edgetl.cli.check_terminal import show
    from edgetl.parity.reports.html_report import as_html
    from edgetl.parity.reports.json_report import as_json
    from edgetl.parity.reports.junit_report import as_junit
    from edgetl.system.atomic_write import write_report_file

    writers = {"json": as_json, "junit": as_junit, "html": as_html}
    unwritten: list[EdgetlError] = []
    for (
        kind,
        path,
    ) in files.items():  # before the terminal: a pipe that is closed must not cost them
        if path is not None:
            try:
                write_report_file(path, writers[kind](result))
            except EdgetlError as error:  # nor one of them the others, and what was compared
                unwritten.append(error)
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH
    show(result, console)
    if unwritten:
        raise unwritten[0]
    for kind, path in files.items():
        if path is not None:
            click.echo(f"{kind}: {path}", err=True)
