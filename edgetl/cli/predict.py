"""``edgetl predict``: labels for photos, with onnxruntime alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.model_options import model_options, open_predictor
from edgetl.cli.printable import printable
from edgetl.errors import ImageError

if TYPE_CHECKING:
    from edgetl.runtime.images import Source
    from edgetl.runtime.predictor import Prediction


@click.command()
@click.argument("model", type=click.Path(exists=True))
@click.argument("photos", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(min=1), default=1, show_default=True, help="How many classes to show a photo.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")
@model_options
def command(model: str, photos: tuple[str, ...], top: int, as_json: bool, **options: Any) -> None:
    """Classify PHOTOS with MODEL, a bundle folder or a lone model.onnx.

    A folder is walked, and - reads one photo from standard input. A photo that can't be read is reported and
    the others are still classified; the exit code is then 1.

    \b
    Example:
      edgetl predict exported/pets photo.jpg --top 3
      edgetl predict exported/pets photos/ --json > answers.jsonl
    """
    predictor = open_predictor(model, **options)
    show = _show_json if as_json else _Table(predictor.labels, top).show
    total = failed = 0
    for result in predictor.batch(_sources(photos)):
        total += 1
        failed += isinstance(result, ImageError)
        show(result)
    if not total:
        raise click.UsageError(f"There is no photo in {', '.join(photos)}.")
    if failed:
        click.echo(f"{failed} of {total} photos could not be classified.", err=True)
        sys.exit(1)


def _sources(photos: Iterable[str]) -> Iterator[Source]:
    from pathlib import Path

    from edgetl.runtime.sources import walk_images

    for photo in photos:
        if photo == "-":
            yield sys.stdin.buffer
        elif Path(photo).is_dir():
            yield from walk_images(photo)
        else:
            yield photo


def as_record(result: Prediction | ImageError) -> dict[str, Any]:
    """One result as JSON values: source, label, confidence, probabilities by label; or source, error."""
    if isinstance(result, ImageError):
        return {"source": result.source, "error": result.reason}
    by_label = dict(zip(result.labels, map(float, result.probabilities), strict=True))
    return {
        "source": result.source,
        "label": result.label,
        "confidence": result.confidence,
        "probabilities": by_label,
    }


def _show_json(result: Prediction | ImageError) -> None:
    click.echo(json.dumps(as_record(result), ensure_ascii=False))


class _Table:
    """Prints as results come, so that a folder of any size shows at once; the photo comes last, being of any length."""

    def __init__(self, labels: tuple[str, ...], top: int) -> None:
        from rich.cells import cell_len

        self._width: Callable[[str], int] = cell_len
        self._column = max(5, *(cell_len(printable(label)) for label in labels))
        self._top = top
        click.echo(f"confidence  {self._pad('label')}  photo")

    def show(self, result: Prediction | ImageError) -> None:
        if isinstance(result, ImageError):
            click.echo(f"{'error':>10}  {printable(f'{result.source}: {result.reason}')}")
            return
        photo = printable(result.source)
        for label, confidence in result.top(self._top):
            click.echo(f"{confidence:>10.2%}  {self._pad(printable(label))}  {photo}".rstrip())
            photo = ""

    def _pad(self, text: str) -> str:
        return text + " " * (self._column - self._width(text))
