"""``edgetl data review``: correct labels that are likely wrong, on a page in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.cli.options.option_types import SomePath
from edgetl.system.message_text import counted, printable
from edgetl.system.shell import shell_word

if TYPE_CHECKING:
    from edgetl.data.label_review import LabelReview
    from edgetl.data.photo_source import PhotoSource


@click.command()
@click.argument("run", type=SomePath())
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port to use. [default: a free one]"
)
def review(run: Path, port: int) -> None:
    """Correct the labels that RUN, a finished training run, found likely wrong, in a web browser.

    Prints the address of a page that only this machine can open. It shows the photos of
    RUN/doubtful.csv one by one, the likeliest errors first: a key moves a photo to the predicted
    class or another one, keeps its label, skips it, or takes back the last decision, also one of
    an earlier review. A photo of a folder is moved from class folder to class folder; of a list, a
    corrected copy is written beside it. Nothing else is changed. Every decision is first written to
    RUN/review.jsonl, and photos that were kept are not shown again. Ctrl-C ends the review. Needs
    the extra serve.

    \b
    Example:
      edgetl data review runs/pets
      edgetl data review runs/pets --port 8000
    """
    from edgetl.system.missing_package import require_packages

    require_packages("edgetl data review", "serve", "starlette", "uvicorn")
    from edgetl.data.label_review import LabelReview
    from edgetl.data.review_log import ReviewLog
    from edgetl.serving.loopback import serve
    from edgetl.serving.review_page import review_app
    from edgetl.system.paths import real_path
    from edgetl.training.config.run_folder import REVIEW_LOG
    from edgetl.training.evaluation.label_issues_table import read_label_issues

    found = read_label_issues(run)
    if not found.photos and not (run / REVIEW_LOG).exists():
        click.echo(f"No training photo of {printable(str(run))} has a label that looks wrong.")
        return
    with ReviewLog(run / REVIEW_LOG) as log:
        labels = LabelReview(found.source, found.labels, found.photos, log)
        if labels.missing:
            click.echo(
                f"{counted(labels.missing, 'photo')} left out: gone, or with another label now.",
                err=True,
            )
        app = review_app(labels, real_path(run).name)
        serve(app, port, lambda address: _print_address(address, labels))
        _print_result(labels, found.source)


def _print_address(address: str, labels: LabelReview) -> None:
    click.echo(f"{counted(labels.counts['open'], 'photo')} to review. Open this page:")
    click.echo(f"  {address}")
    click.echo("Ctrl-C ends the review.", err=True)


def _print_result(labels: LabelReview, source: PhotoSource) -> None:
    counts = labels.counts
    click.echo(f"{counts['moved']:,} moved, {counts['kept']:,} kept, {counts['open']:,} left.")
    if data := labels.corrected:
        root = f" --root {shell_word(source.root)}" if source.root else ""
        click.echo(f"Train on the corrected labels: edgetl train {shell_word(data)}{root} -o NEW")
