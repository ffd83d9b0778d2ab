"""One run over many photos on a cluster: what is left to do, and what is there in the end."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetl.cluster.cluster_job import ClusterJob, PartSummary
from edgetl.cluster.cluster_progress import ClusterProgress, show_time
from edgetl.cluster.destination import Destination
from edgetl.cluster.earlier_rows import EarlierRows
from edgetl.cluster.part_file import PartFile, part_bytes
from edgetl.cluster.ray_cluster import cluster_address, ray_cluster
from edgetl.cluster.ray_stage import classify_units, model_files
from edgetl.cluster.run_manifest import RunManifest
from edgetl.cluster.work_unit import (
    WorkUnit,
    is_part,
    photo_units,
    photos_outside_shards,
    shard_units,
)
from edgetl.errors import DataError, ResultsError
from edgetl.runtime.images.photo_list import ListedPhoto, is_photo_list
from edgetl.runtime.images.photo_places import StoredPlace, label_folders, no_photo_in
from edgetl.runtime.images.photo_shards import open_shard
from edgetl.runtime.images.stored_path import as_place, is_address
from edgetl.runtime.inference.predictor import Predictor
from edgetl.runtime.inference.session import Providers
from edgetl.runtime.results.records import columns
from edgetl.system.missing_package import require_packages
from edgetl.system.progress import Progress

_LISTING = "Looking for what there is to do"

Argument = str | ListedPhoto | StoredPlace


@dataclass(frozen=True)
class ClusterResult:
    """What a run left at its destination, and what of that is new.

    photos, failed  all rows, and those with an error
    parts           files
    new             photos that this run classified, or could not read
    classified, labelled, correct  of the new ones: see ``PartSummary``
    """

    photos: int
    failed: int
    parts: int
    new: int
    classified: int
    labelled: int
    correct: int


def classify_on_cluster(
    predictor: Predictor,
    names: Sequence[str],
    arguments: Sequence[Argument],
    out: str,
    *,
    address: str,
    providers: Providers,
    root: str | os.PathLike[str] | None,
    embeddings: bool,
    unknown_as: str | None,
    progress: Progress,
) -> ClusterResult:
    """Classify photos with the workers of a Ray cluster, and write the answers to ``out``.

    predictor   of the model; workers open their own, with its options
    names       of photos, as the user gives them
    arguments   the same, with lists read
    out         a folder, or an address in a store; continued if a run was stopped there
    address     of the cluster, see ``cluster_address``
    providers   of the workers' predictors; "auto" is the CPU, on machines with a GPU, too
    root        see ``photos_in``
    embeddings  with each photo's embedding
    unknown_as  label of unknown photos; None: the nearest of the model's

    Raises EdgetlError; what was written until then is used by the next run.
    """
    require_packages("--ray", "ray", "ray")
    address = cluster_address(address)
    destination = Destination(out)
    rows: dict[str, Any] = {"embeddings": embeddings, "unknown_as": unknown_as}
    with show_time(progress, _LISTING):
        manifest = RunManifest(
            destination,
            predictor.model_id,
            predictor.labels,
            {"max_pixels": predictor.max_pixels, **rows},
        )
        units, done, twice = _plan(destination, manifest.files, arguments)
    if not units and not done:
        raise no_photo_in(*names)
    job = ClusterJob(
        destination=out if is_address(out) else str(Path(out).absolute()),
        run=manifest.run,
        **_model_values(predictor, providers, embeddings),
        **rows,
        label_folders=tuple(os.fspath(folder) for folder in label_folders(names, root)),
        folder=str(Path.cwd()),
        places=_local_places(names, arguments, units),
    )
    manifest.begin()
    destination.remove_unfinished()
    for part, sources in twice.items():
        _remove_rows(destination, part, sources, job.columns)
    if units:
        files = model_files(predictor)
        with ClusterProgress(progress, units) as shown, ray_cluster(address) as ray:
            for summary in classify_units(ray, job, files, units):
                done[summary.part] = summary
                shown.add(summary)
    _require_parts(destination, done)
    result = _result(done.values())
    manifest.complete({"photos": result.photos, "failed": result.failed, "parts": result.parts})
    return result


def _model_values(predictor: Predictor, providers: Providers, embeddings: bool) -> dict[str, Any]:
    """What workers are told of the model."""
    card = predictor.card
    names = columns(
        card.labels,
        sure=card.has_sure_answers,
        unknown=card.unknown is not None,
        embeddings=embeddings,
    )
    own = {
        "threads": predictor.threads or 1,
        "providers": "cpu" if providers == "auto" else providers,
    }
    return {
        "model": str(predictor.path),
        "model_id": predictor.model_id,
        "options": {**predictor.options, **own},
        "columns": tuple(names),
    }


def _plan(
    destination: Destination, files: Iterable[str], arguments: Sequence[Argument]
) -> tuple[list[WorkUnit], dict[str, PartSummary], Mapping[str, Collection[str]]]:
    """(units that need a worker, parts that need none and their summaries, ``EarlierRows.twice``)

    Raises DataError for names of nothing.
    """
    if all(isinstance(name, str) and not os.path.lexists(name) for name in arguments):
        raise DataError(f"There is no {arguments[0]}.", "Check the name.")
    shards = shard_units(arguments)
    if shards:
        _require_first(shards)
    of_shards = {unit.part for unit in shards}  # which workers look into
    earlier = EarlierRows(
        destination, [file for file in files if is_part(file) and file not in of_shards]
    )
    others = photo_units(photos_outside_shards(arguments), earlier.done, earlier.again)
    changed = {unit.part for unit in others}
    known = {part: summary for part, summary in earlier.parts.items() if part not in changed}
    there = frozenset(files)
    units = [replace(unit, was_there=unit.part in there) for unit in (*shards, *others)]
    return units, known, earlier.twice


def _require_first(shards: Sequence[WorkUnit]) -> None:
    """Raise DataError where the first shard of a place can't be opened: its name may be wrong.

    One of the others that can't be is a row of the result, as a photo is.
    """
    folders = {as_place(unit.shard).parent: unit.shard for unit in reversed(shards)}
    for shard in folders.values():
        open_shard(as_place(shard)).close()


def _remove_rows(
    destination: Destination, part: str, sources: Collection[str], columns: Sequence[str]
) -> None:
    """Write a part again without the rows of ``sources``. Raises ResultsError."""
    content = destination.read(part) or b""
    kept = PartFile(f"{destination}/{part}", content, columns).without(sources)
    destination.write(part, part_bytes(columns, kept, ()))


def _local_places(
    names: Sequence[str], arguments: Sequence[Argument], units: Sequence[WorkUnit]
) -> tuple[str, ...]:
    """Places of photos on this machine's disk, which a worker must see, too."""
    found = [name for name in names if not (is_address(name) or is_photo_list(name))]
    found += [unit.shard for unit in units if unit.shard and not is_address(unit.shard)][:1]
    listed = (os.fspath(photo.path) for photo in arguments if isinstance(photo, ListedPhoto))
    local = (path for path in listed if not is_address(path) and os.path.lexists(path))
    found += [path for path in (next(local, None),) if path is not None]
    return tuple(str(Path(name).absolute()) for name in found if Path(name).exists())


def _require_parts(destination: Destination, done: Mapping[str, PartSummary]) -> None:
    """Raise ResultsError unless the parts that were written, and no others, are there."""
    there = {file for file in destination.files() if is_part(file)}
    if missing := sorted(done.keys() - there):
        raise ResultsError(
            f"{len(missing)} of {len(done)} parts are not in {destination}, {missing[0]} first.",
            "If a machine of the cluster has another disk, name an address in a store, or a "
            "shared folder, with --out. Otherwise give the same command again.",
        )
    if more := sorted(there - done.keys()):
        raise ResultsError(
            f"Another run wrote to {destination} meanwhile: {more[0]}.",
            "Give the same command again when it has ended.",
        )


def _result(summaries: Iterable[PartSummary]) -> ClusterResult:
    found = list(summaries)
    counted = ("photos", "failed", "new", "classified", "labelled", "correct")
    totals = {name: sum(getattr(summary, name) for summary in found) for name in counted}
    return ClusterResult(parts=len(found), **totals)
