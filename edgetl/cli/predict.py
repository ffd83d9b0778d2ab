"""``edgetl predict``: labels for photos, with onnxruntime alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.model_options import model_options, open_predictor
from edgetl.cli.printable import counted, json_text, printable, width
from edgetl.errors import ImageError

if TYPE_CHECKING:
    from edgetl.runtime.images.decode import Source
    from edgetl.runtime.inference.predictor import Prediction, Predictor
    from edgetl.runtime.results.sharding import Shard


@click.command(short_help="Classify photos.")
@click.argument("model", type=click.Path(exists=True))
@click.argument("photos", nargs=-1, required=True)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(min=1),
    help="Only the N best classes. [default: 1 in the table, all in JSON]",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line to standard output, not a table.",
)
@click.option(
    "-o",
    "--out",
    "--output",
    "out",
    type=click.Path(dir_okay=False),
    help="Write to a .jsonl, .csv or .parquet file; continues one.",
)
@click.option(
    "--shard",
    "shard_text",
    default="1/1",
    metavar="I/N",
    help="Take only the I-th of N parts of the photos.",
)
@model_options
def command(
    model: str,
    photos: tuple[str, ...],
    top: int | None,
    as_json: bool,
    out: str | None,
    shard_text: str,
    **options: Any,
) -> None:
    """Classify PHOTOS with MODEL, a bundle folder or a lone model.onnx.

    A folder is walked, and - reads one photo from standard input. A photo that can't be read is reported and
    the others are still classified; the exit code is then 1. A run with --out that was stopped goes on where it
    was when the same command is given again; photos that failed are in its file and not tried again.

    \b
    Example:
      edgetl predict exported/pets photo.jpg --top 3
      edgetl predict exported/pets photos/ --json > answers.jsonl
      edgetl predict exported/pets photos/ --out answers.parquet --shard 2/8
    """
    if out is not None and (top is not None or as_json):
        raise click.UsageError("--out writes every class to its file: leave out --top and --json.")
    if "" in photos:
        raise click.UsageError("A photo's name is empty: is a variable of the shell not set?")
    from edgetl.runtime.images.discovery import is_folder

    shard = _parse_shard(shard_text)
    if Path(model).suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
        raise click.UsageError(
            f"{model} is a photo. The model comes first: edgetl predict MODEL PHOTOS…"
        )
    many = len(photos) > 1 or is_folder(Path(photos[0]))
    if len(photos) > 1:
        _warn_of_empty(photos)
    predictor = open_predictor(model, many=many, **options)
    right = _RightByFolder(predictor.labels, photos)
    if out is None:
        total, failed = _print_all(predictor, _sources(photos, shard), right, top, as_json)
    else:
        total, failed = _write_all(predictor, photos, shard, right, out)
    if not total and shard.count == 1:
        raise click.UsageError(f"There is no photo in {', '.join(photos)}.")
    if failed:
        where = f"; {out} says why" if out is not None else ""
        click.echo(f"{failed} of {total} photos could not be classified{where}.", err=True)
        sys.exit(1)


def _warn_of_empty(photos: tuple[str, ...]) -> None:
    """Of folders without a photo beside others with some."""
    from edgetl.runtime.images.discovery import is_folder, walk_images

    empty = [
        name
        for name in photos
        if is_folder(Path(name)) and next(walk_images(name, strict=False), None) is None
    ]
    if len(empty) < len(photos):
        for name in empty:
            click.echo(f"Warning: there is no photo in {printable(name)}.", err=True)


def _parse_shard(text: str) -> Shard:
    from edgetl.runtime.results.sharding import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise click.UsageError(f"--shard: {error}") from error


def _sources(photos: Iterable[str], shard: Shard) -> Iterator[Source]:
    from edgetl.runtime.results.sharding import photos_of

    for photo in photos:
        if photo == "-":
            if sys.stdin is None:
                raise click.UsageError("Standard input is closed.")
            yield sys.stdin.buffer
        else:
            yield from photos_of([photo], shard)


def _print_all(
    predictor: Predictor,
    sources: Iterable[Source],
    right: _RightByFolder,
    top: int | None,
    as_json: bool,
) -> tuple[int, int]:
    """(photos, failures)"""
    show = partial(_show_json, top=top) if as_json else _Table(predictor.labels, top or 1).show
    total = failed = 0
    for result in predictor.batch(sources):
        total += 1
        failed += isinstance(result, ImageError)
        right.count(result)
        show(result)
    right.tell()
    return total, failed


def _write_all(
    predictor: Predictor, photos: tuple[str, ...], shard: Shard, right: _RightByFolder, out: str
) -> tuple[int, int]:
    """(photos, failures), those of earlier runs included."""
    from edgetl.cli.progress_bar import show_progress
    from edgetl.runtime.results.result_files import open_results
    from edgetl.runtime.results.sharding import photos_of
    from edgetl.system.progress import no_progress

    if "-" in photos:
        raise click.UsageError("--out takes files and folders, not standard input.")
    written = _modified(Path(out))
    changed, first = 0, ""
    with open_results(out, predictor.model_id, predictor.labels) as results:
        total = len(results)

        def unanswered() -> Iterator[Path]:
            nonlocal changed, first
            for photo in photos_of(photos, shard):
                if str(photo) not in results:
                    yield photo
                elif written and (_modified(photo) or 0) > written:
                    changed, first = changed + 1, first or str(photo)

        with show_progress() as progress:
            # Counting walks through all folders, which only a progress line needs.
            all_photos = 0 if progress is no_progress else sum(1 for _ in photos_of(photos, shard))
            for result in predictor.batch(unanswered()):
                results.append(result)
                total += 1
                right.count(result)
                progress("Classifying photos", total, max(all_photos, total))
    if changed:
        click.echo(
            f"Warning: the old answers stand, though {counted(changed, 'photo')} changed since {out} was written, "
            f"{printable(first)} first. Remove that file, or name another one, to have them classified again.",
            err=True,
        )
    right.tell(", of the new ones" if len(results) else "")
    click.echo(
        f"photos in {out}: {total}"
        + (f", {len(results)} of them from before" if len(results) else ""),
        err=True,
    )
    return total, results.failed


def _modified(path: Path) -> float | None:
    """When, in seconds; None where there is nothing to ask."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


class _RightByFolder:
    """Accuracy, where every photo lies in a folder that is named as one of the labels; see ``class_folder``."""

    def __init__(self, labels: tuple[str, ...], arguments: Iterable[str]) -> None:
        from edgetl.runtime.images.discovery import is_folder

        arguments = list(arguments)
        self._labels, self._photos, self._right = frozenset(labels), 0, 0
        self._known = "-" not in arguments
        self._roots = [Path(name) for name in arguments if is_folder(Path(name))]

    def count(self, result: Prediction | ImageError) -> None:
        from edgetl.runtime.images.discovery import class_folder

        if isinstance(result, ImageError):
            return
        photo = Path(result.source)
        root = next((root for root in self._roots if photo.is_relative_to(root)), photo.parent)
        truth = class_folder(photo, root, self._labels)
        self._known = self._known and truth is not None
        self._photos += 1
        self._right += truth == result.label

    def tell(self, which: str = "") -> None:
        """On standard error: answers alone are on standard output."""
        if self._known and self._photos:
            share = f"{self._right:,} of {self._photos:,} ({self._right / self._photos:.2%})"
            click.echo(f"answers that are the name of the photo's folder{which}: {share}", err=True)


def _show_json(result: Prediction | ImageError, top: int | None) -> None:
    from edgetl.runtime.results.records import as_record

    record = as_record(result)
    if top is not None and not isinstance(result, ImageError):
        record["probabilities"] = dict(result.top(top))
    click.echo(json_text(record))


class _Table:
    """Prints as results come, so that a folder of any size shows at once; the photo comes last, being of any length."""

    def __init__(self, labels: tuple[str, ...], top: int) -> None:
        self._column = max(5, *(width(printable(label)) for label in labels))
        self._top = top
        self._begun = False

    def show(self, result: Prediction | ImageError) -> None:
        if not self._begun:
            click.echo(f"confidence  {self._pad('label')}  photo")
            self._begun = True
        if isinstance(result, ImageError):
            click.echo(f"{'error':>10}  {printable(f'{result.source}: {result.reason}')}")
            return
        photo = printable(result.source)
        for label, confidence in result.top(self._top):
            click.echo(f"{confidence:>10.2%}  {self._pad(printable(label))}  {photo}".rstrip())
            photo = ""

    def _pad(self, text: str) -> str:
        return text + " " * (self._column - width(text))
