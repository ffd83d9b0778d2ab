"""``edgetl predict --ray``: many photos, on a cluster."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.process import is_interrupted
from edgetl.system.remote_store import is_web

if TYPE_CHECKING:
    from edgetl.cli.prediction_accuracy import PredictionAccuracy
    from edgetl.runtime.images.photo_list import ListedPhoto
    from edgetl.runtime.images.photo_places import StoredPlace
    from edgetl.runtime.inference.predictor import Predictor
    from edgetl.runtime.inference.session import Providers


def parse_address(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Raises RuntimeUnavailableError: --ray before the photos takes their name for an address."""
    from edgetl.cluster.ray_cluster import require_address

    if text is not None:
        require_address(text)
    return text


def refuse_other_options(
    photos: Sequence[str], out: str | None, unusable: Mapping[str, Any]
) -> None:
    """Raise UsageError for what has no meaning on a cluster.

    unusable  option → its value, of those that --ray excludes
    """
    if out is None:
        raise click.UsageError("--ray needs --out, a folder or an address such as s3://bucket/out.")
    if Path(out).is_file():
        raise click.UsageError(f"--out {out} is a file; --ray writes many, into a folder.")
    if is_web(out):
        raise click.UsageError(f"--out {out}: web servers take no files; name a folder or a store.")
    for option, value in unusable.items():
        if value:
            raise click.UsageError(f"{option} has no effect with --ray: leave it out.")
    if "-" in photos:
        raise click.UsageError("--ray takes files, folders and stores, not standard input.")


def classify_on_ray(
    predictor: Predictor,
    providers: Providers,
    photos: Sequence[str],
    arguments: Sequence[str | ListedPhoto | StoredPlace],
    out: str,
    address: str,
    accuracy: PredictionAccuracy,
    *,
    root: Path | None,
    embeddings: bool,
    unknown_as: str | None,
) -> tuple[int, int]:
    """Returns (photos, failures), including those of earlier runs."""
    from edgetl.cli.terminal.progress_bar import show_progress
    from edgetl.cluster.cluster_run import classify_on_cluster

    def still_wanted(step: str, done: int, total: int, /) -> None:
        """Ray can lose the exception of a signal that arrives in a callback of its own."""
        if is_interrupted() and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        progress(step, done, total)

    try:
        with show_progress() as progress:
            result = classify_on_cluster(
                predictor,
                photos,
                arguments,
                out,
                address=address,
                providers=providers,
                root=root,
                embeddings=embeddings,
                unknown_as=unknown_as,
                progress=still_wanted,
            )
    except KeyboardInterrupt:
        click.echo(f"{out} is not complete; the same command continues it.", err=True)
        raise
    before = result.photos - result.new
    accuracy.add_counts(result.classified, result.labelled, result.correct)
    accuracy.print(", of the new photos" if before else "")
    earlier = f", {before} of them from before" if before else ""
    click.echo(f"photos in {out}: {result.photos}{earlier}", err=True)
    return result.photos, result.failed
