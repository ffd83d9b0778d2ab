"""``--keep-doubtful``: the photos most worth labelling, copied into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.cli.options.option_types import SomePath
from edgetl.system.message_text import printable
from edgetl.system.paths import real_path

if TYPE_CHECKING:
    from edgetl.runtime.inference.predictor import Predictor

keep_doubtful_option = click.option(
    "--keep-doubtful",
    type=(SomePath(), click.IntRange(min=1)),
    metavar="DIR N",
    help="Copy the N photos of a day most worth labelling to a folder of DIR.",
)


@contextmanager
def doubtful_photos(
    given: tuple[Path, int] | None, photos: Sequence[str], predictor: Predictor
) -> Iterator[Callable[[object], None]]:
    """Yield what is told of each result, to keep the most doubtful photos as they were asked for.

    given  the folder, and how many photos a day; None: keep none
    """
    if given is None:
        yield lambda _: None
        return
    from edgetl.runtime.results.doubtful_photos import DoubtfulPhotos

    folder, most = given
    if "-" in photos:
        raise click.UsageError("--keep-doubtful copies files, not standard input.")
    inside = [name for name in photos if real_path(folder).is_relative_to(real_path(name))]
    if inside:
        raise click.UsageError(
            f"--keep-doubtful: {folder} lies in {inside[0]}, so its copies would be classified, "
            "too. Name a folder elsewhere."
        )
    doubtful = DoubtfulPhotos(folder, most, predictor.model_id)
    try:
        yield doubtful.add
    finally:
        doubtful.save()
    copies = f"; left out as copies of others: {doubtful.copies:,}" if doubtful.copies else ""
    click.echo(f"photos to label: {printable(str(folder))}{copies}", err=True)
