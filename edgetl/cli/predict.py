"""``edgetl predict``: labels for photos, with onnxruntime alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.named_photos import has_stored, read_lists, warn_of_empty_folders
from edgetl.cli.options.doubtful_option import doubtful_photos, keep_doubtful_option
from edgetl.cli.options.list_options import list_options
from edgetl.cli.options.model_options import model_options, open_predictor
from edgetl.cli.options.option_types import Number
from edgetl.cli.options.output_options import output_option
from edgetl.cli.predict_cluster import classify_on_ray, parse_address, refuse_other_options
from edgetl.cli.prediction_accuracy import PredictionAccuracy
from edgetl.cli.process import require_stdout
from edgetl.cli.terminal.prediction_table import PredictionTable
from edgetl.cli.terminal.terminal_text import json_text, print_warnings
from edgetl.system.message_text import counted

if TYPE_CHECKING:
    from edgetl.runtime.images.decode import Source
    from edgetl.runtime.images.photo_list import ListedPhoto
    from edgetl.runtime.images.photo_places import StoredPlace
    from edgetl.runtime.inference.prediction import Result
    from edgetl.runtime.inference.predictor import Predictor
    from edgetl.runtime.results.sharding import Shard

_EXPORT_AGAIN = "Export it without --no-unknown. If its run has no score, train again first."


def _parse_shard(_: click.Context, __: click.Parameter, text: str) -> Shard:
    from edgetl.runtime.results.sharding import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


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
    "--set",
    "level",
    metavar="LEVEL",
    type=Number(0, 1, min_open=True, max_open=True),
    help="Labels among which the right one is with this probability, such as 0.95.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object per line to standard output, not a table.",
)
@output_option(
    "Write to a .jsonl, .csv or .parquet file; continues one.", required=False, kind=click.Path()
)
@click.option(
    "--ray",
    "cluster",
    is_flag=False,
    flag_value="",
    callback=parse_address,
    metavar="[HOST:PORT]",
    help="Classify on a Ray cluster, or all of this machine; --out is then a folder or address.",
)
@click.option(
    "--shard",
    default="1/1",
    callback=_parse_shard,
    metavar="I/N",
    help="Take only the I-th of N parts of the photos.",
)
@click.option(
    "--embeddings",
    is_flag=True,
    help="With --out: also write each photo's embedding, for edgetl drift.",
)
@keep_doubtful_option
@click.option(
    "--unknown-as",
    metavar="NAME",
    help="Label of photos unlike the training photos. [default: the nearest of the model's]",
)
@list_options
@model_options
def command(
    model: str,
    photos: tuple[str, ...],
    top: int | None,
    level: float | None,
    as_json: bool,
    out: str | None,
    cluster: str | None,
    shard: Shard,
    embeddings: bool,
    keep_doubtful: tuple[Path, int] | None,
    unknown_as: str | None,
    columns: str | None,
    root: Path | None,
    **options: Any,
) -> None:
    """Classify PHOTOS with MODEL, a bundle folder or a lone model.onnx.

    Folders are searched for photos; tar shards and Parquet files that hold photos are read, and so
    are addresses such as s3://bucket/photos (extra remote); lists (.csv, .tsv, .jsonl, .parquet
    with a column of paths, or .txt with one in each line) are read; and - reads one photo from
    standard input. A photo that can't be read is reported and the others are still classified; the
    exit code is then 1. A run with --out that was stopped continues when the same command is given
    again. Photos that could not be read for a reason that can pass, such as "permission denied",
    are then tried again; those that are damaged are not. Where photos lie in folders named as
    labels, or a list or shard has labels, that file has the true label, too, and the command ends
    with the accuracy.
    The label of a photo unlike the training photos is "unknown", with the nearest one in brackets;
    in JSON and in files the field unknown says so, and the label is the nearest one.

    With --ray, the cores of a cluster classify, and --out is a folder or an address in a store, in
    which a Parquet file is written for each shard, or each thousand photos (extra ray).

    Where the model was exported with --precision-at, answers that are not sure enough for that are
    printed as "unsure", with the label in brackets.

    \b
    Example:
      edgetl predict exported/pets photo.jpg --top 3
      edgetl predict exported/pets photo.jpg --set 0.95
      edgetl predict exported/pets photos/ --json > answers.jsonl
      edgetl predict exported/pets photos/ --out answers.parquet --shard 2/8
      edgetl predict exported/pets photos.csv --columns path=file
      edgetl predict exported/pets "s3://bucket/shards/{000..099}.tar" --out answers.parquet
      edgetl predict exported/pets "s3://bucket/shards/*.tar" --out s3://bucket/answers --ray
      edgetl predict exported/pets photos/ --out answers.parquet --embeddings
      edgetl predict exported/pets photos/ --keep-doubtful to-label/ 20
    """
    _refuse_contradictions(out, top, level, as_json, embeddings, cluster)
    _refuse_wrong_names(model, photos)
    if cluster is not None:
        refuse_other_options(
            photos, out, {"--shard": shard.count > 1, "--keep-doubtful": keep_doubtful}
        )
    elif out is None:
        require_stdout()
    arguments = read_lists(photos, columns, root)
    many = _may_be_many(photos, arguments)
    if keep_doubtful and has_stored(arguments):
        raise click.UsageError("--keep-doubtful copies files, not photos in shards or stores.")
    if len(photos) > 1:
        warn_of_empty_folders(photos)
    # Workers open the model themselves: here, it only says what it is.
    own = options if cluster is None else {**options, "providers": "cpu"}
    predictor = open_predictor(model, own, many=many)
    _refuse_what_it_lacks(predictor, embeddings, unknown_as)
    accuracy = PredictionAccuracy(predictor.labels, photos, arguments, root)
    show = PredictionTable(predictor.card, top or 1, level, unknown_as or "unknown").show
    if as_json:
        show = partial(_show_json, top=top, level=level, unknown_as=unknown_as)
    with doubtful_photos(keep_doubtful, photos, predictor) as notice:
        if cluster is not None:
            total, failed = classify_on_ray(
                predictor,
                options["providers"],
                photos,
                arguments,
                str(out),
                cluster,
                accuracy,
                root=root,
                embeddings=embeddings,
                unknown_as=unknown_as,
            )
        elif out is None:
            sources = _sources(arguments, shard, accuracy)
            total, failed = _print_all(predictor, sources, accuracy, notice, show)
        else:
            total, failed = _write_all(
                predictor, arguments, shard, accuracy, notice, out, embeddings, unknown_as
            )
    if not total and shard.count == 1:
        raise click.UsageError(f"There is no photo in {', '.join(photos)}.")
    if failed:
        where = f"; {out} says why" if out is not None else ""
        click.echo(f"{failed} of {total} photos could not be classified{where}.", err=True)
        sys.exit(1)


def _refuse_contradictions(
    out: str | None,
    top: int | None,
    level: float | None,
    as_json: bool,
    embeddings: bool,
    cluster: str | None,
) -> None:
    if out is not None and (top or level or as_json):
        raise click.UsageError(
            "--out writes every class to its file: leave out --top and --json, and --set."
        )
    if top and level:
        raise click.UsageError("--set decides how many labels there are: leave out --top.")
    if cluster is not None:  # ``refuse_other_options`` knows what it excludes
        return
    if out is None and embeddings:
        raise click.UsageError("--embeddings needs --out, a .parquet or .jsonl file.")
    if out is not None and Path(out).is_dir():
        raise click.UsageError(f"--out {out} is a folder, which only --ray writes to.")


def _refuse_wrong_names(model: str, photos: Sequence[str]) -> None:
    if "" in photos:
        raise click.UsageError("A photo's name is empty: is a variable of the shell not set?")
    if Path(model).suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
        raise click.UsageError(
            f"{model} is a photo. The model comes first: edgetl predict MODEL PHOTOS…"
        )


def _refuse_what_it_lacks(predictor: Predictor, embeddings: bool, unknown_as: str | None) -> None:
    """Raises UsageError for what needs a score of unknown photos, and for a useless name."""
    can_tell = predictor.card.unknown is not None
    if embeddings and not can_tell:
        raise click.UsageError(f"--embeddings: this model gives none. {_EXPORT_AGAIN}")
    if unknown_as is None:
        return
    if not can_tell:
        raise click.UsageError(
            f"--unknown-as: this model can't tell unknown photos. {_EXPORT_AGAIN}"
        )
    if unknown_as in predictor.labels or not unknown_as:
        reason = "is a label of the model" if unknown_as else "is empty"
        raise click.UsageError(f"--unknown-as {unknown_as!r} {reason}: choose another name.")


def _may_be_many(
    photos: Sequence[str], arguments: Sequence[str | ListedPhoto | StoredPlace]
) -> bool:
    from edgetl.runtime.images.discovery import is_folder

    return (
        len(arguments) > 1 or any(is_folder(Path(name)) for name in photos) or has_stored(arguments)
    )


def _sources(
    photos: Iterable[str | ListedPhoto | StoredPlace], shard: Shard, accuracy: PredictionAccuracy
) -> Iterator[Source]:
    from edgetl.runtime.results.sharding import photos_of

    for photo in photos:
        if photo == "-":
            if sys.stdin is None:
                raise click.UsageError("Standard input is closed.")
            yield sys.stdin.buffer
        else:
            yield from map(accuracy.expect, photos_of([photo], shard))


def _print_all(
    predictor: Predictor,
    sources: Iterable[Source],
    accuracy: PredictionAccuracy,
    notice: Callable[[object], None],
    show: Callable[[Result], None],
) -> tuple[int, int]:
    """Returns (photos, failures)."""
    total = failed = 0
    for result in predictor.batch(sources):
        total += 1
        failed += isinstance(result, Exception)
        accuracy.add(result)
        notice(result)
        show(result)
    accuracy.print()
    return total, failed


def _write_all(
    predictor: Predictor,
    photos: Sequence[str | ListedPhoto | StoredPlace],
    shard: Shard,
    accuracy: PredictionAccuracy,
    notice: Callable[[object], None],
    out: str,
    embeddings: bool,
    unknown_as: str | None,
) -> tuple[int, int]:
    """Returns (photos, failures), including those of earlier runs."""
    from edgetl.cli.terminal.progress_bar import show_progress
    from edgetl.runtime.results.file_formats import open_results
    from edgetl.runtime.results.sharding import photos_of
    from edgetl.system.progress import no_progress

    if "-" in photos:
        raise click.UsageError("--out takes files and folders, not standard input.")
    written = _modified(Path(out))
    changed, first_changed = 0, ""
    card = predictor.card
    with open_results(
        out,
        predictor.model_id,
        predictor.labels,
        sure=card.has_sure_answers,
        unknown=card.unknown is not None,
        embeddings=embeddings,
    ) as results:
        new, known = 0, len(results)

        def without_result() -> Iterator[Path]:
            nonlocal changed, first_changed
            for photo in photos_of(photos, shard):
                if os.fspath(photo) not in results:  # str() shortens addresses
                    yield accuracy.expect(photo)
                elif written and (_modified(photo) or 0) > written:
                    changed, first_changed = changed + 1, first_changed or str(photo)

        with show_progress() as progress:
            # Counting walks through all folders, which only a progress line needs. Shards would be
            # read for it.
            is_counted = progress is not no_progress and not has_stored(photos)
            all_photos = sum(1 for _ in photos_of(photos, shard)) if is_counted else 0
            for result in predictor.batch(without_result()):
                results.append(result, accuracy.add(result), unknown_as)
                notice(result)
                new += 1
                progress("Classifying photos", len(results), max(all_photos, len(results)))
    if changed:
        warning = (
            f"the old answers stand, though {counted(changed, 'photo')} changed since {out} was "
            f"written, {first_changed} first. Remove that file, or name another one, to have them "
            "classified again."
        )
        print_warnings([warning])
    total = len(results)
    accuracy.print(", of the new photos" if known else "")
    before = f", {total - new} of them from before" if known else ""
    click.echo(f"photos in {out}: {total}{before}", err=True)
    return total, results.failed


def _modified(path: Path) -> float | None:
    """Modification time, in seconds; None if there is no such file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _show_json(
    result: Result, top: int | None, level: float | None, unknown_as: str | None
) -> None:
    from edgetl.runtime.results.records import as_record

    click.echo(json_text(as_record(result, top=top, level=level, unknown_as=unknown_as)))
