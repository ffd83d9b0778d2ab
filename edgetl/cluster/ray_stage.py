"""The units of a job through one stage of Ray Data: actors that hold one predictor each.

Actors read the photos themselves. A stage of its own for that would copy every photo through Ray's
object store, twice as many bytes as are read, and where there are few cores its tasks and the
actors would wait for each other; within an actor, photos are read while others are classified.
They also write the parts, so that what goes back is a line for each part, and what Ray repeats
after it lost a worker or a machine replaces the same file with the same rows.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgetl.cluster.cluster_job import ClusterJob, PartSummary
from edgetl.cluster.destination import Destination
from edgetl.cluster.part_classifier import PartClassifier
from edgetl.cluster.run_manifest import require_run
from edgetl.cluster.work_unit import WorkUnit
from edgetl.errors import BundleError, EdgetlError, ResultsError, RuntimeUnavailableError
from edgetl.runtime.inference.predictor import Predictor
from edgetl.runtime.inference.session import CPU
from edgetl.system.temporary_folder import scratch_folder

# Of Ray: each costs the driver ten milliseconds of work, and memory. The end of a run waits for the
# last ones, so that a worker needs many.
_MOST_TASKS, _TASKS_OF_A_WORKER = 5_000, 20
_UNIT, _SUMMARY = "unit", "summary"
_ON_CPU = ("cpu", CPU)

Files = Mapping[str, bytes]


class PhotoClassifier:
    """The actor. Its predictor is opened at the first unit, where an error can be reported.

    job    what to do
    files  Ray's reference to the model: relative path → content
    """

    def __init__(self, job: ClusterJob, files: Any) -> None:
        self._job, self._files = job, files
        self._parts: PartClassifier | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """The summary of each unit in a batch, both as JSON."""
        return {_SUMMARY: [self._write(WorkUnit.from_json(str(text))) for text in batch[_UNIT]]}

    def _write(self, unit: WorkUnit) -> str:
        try:
            self._parts = self._parts or self._open()
            summary = self._parts.write(unit)
        except EdgetlError as error:
            summary = PartSummary(unit.part, failure=(error.message, error.hint))
        except OSError as error:
            message = f"A worker failed: {error.filename or unit.part}: {error.strerror or error}."
            summary = PartSummary(unit.part, failure=(message, None))
        return json.dumps(asdict(summary))

    def _open(self) -> PartClassifier:
        import ray

        job = self._job
        with suppress(OSError):  # then nothing here has a relative path
            os.chdir(job.folder)
        require_run(Destination(job.destination), job.run)
        for place in job.places:
            if not os.path.lexists(place):
                raise RuntimeUnavailableError(
                    f"A machine of the cluster does not have {place}.",
                    "Name photos in a store, or on a disk that all its machines share.",
                )
        predictor = _open_model(ray.get(self._files), job)
        return PartClassifier(job, predictor)


def model_files(predictor: Predictor) -> dict[str, bytes]:
    """What a worker needs of a model: relative path → content. Raises BundleError."""
    path = predictor.path
    if predictor.bundle is None:
        return {path.name: _content(path)}
    bundle = predictor.bundle
    names = ("manifest.json", bundle.model_name(predictor.precision))
    return {f"{path.name}/{name}": _content(path / name) for name in names}


def classify_units(
    ray: Any, job: ClusterJob, files: Files, units: Sequence[WorkUnit]
) -> Iterator[PartSummary]:
    """Have the units' parts written; yields a summary for each as it is done.

    Raises EdgetlError.
    """
    _quieten(ray)
    rows = [{_UNIT: unit.to_json()} for unit in units]
    resources = _resources(ray, job)
    # Of an actor on a GPU, which runs photos in batches, all cores decode.
    job = replace(job, workers=resources["num_cpus"] if "num_gpus" in resources else 1)
    try:
        pool = _pool(ray, len(units), resources)
        tasks = min(len(rows), max(_MOST_TASKS, _TASKS_OF_A_WORKER * pool.initial_size))
        dataset = ray.data.from_items(rows, override_num_blocks=tasks)
        done = dataset.map_batches(
            PhotoClassifier,
            fn_constructor_args=(job, ray.put(files)),
            batch_size=1,
            compute=pool,
            **resources,
        )
        for batch in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
            for text in batch[_SUMMARY]:
                yield _summary(str(text))
    except ray.exceptions.RayError as error:
        raise _worker_error(error) from error


def _quieten(ray: Any) -> None:
    """Turn off Ray Data's own bars and log lines."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _resources(ray: Any, job: ClusterJob) -> dict[str, int]:
    """What Ray reserves for an actor."""
    providers = job.options["providers"]
    names = [providers] if isinstance(providers, str) else providers
    if all(name in _ON_CPU for name in names):
        return {"num_cpus": int(job.options["threads"])}
    found = ray.cluster_resources()
    if not found.get("GPU"):
        raise RuntimeUnavailableError(
            f"No machine of the cluster has a GPU for {', '.join(names)}.", "Leave out --providers."
        )
    return {"num_cpus": max(1, int(found["CPU"] // found["GPU"])), "num_gpus": 1}


def _pool(ray: Any, units: int, resources: Mapping[str, int]) -> Any:
    """From one actor to as many as there are units; begins with as many as there is room for."""
    found = ray.cluster_resources()
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    room = min(int(found.get(names[name], 0) // count) for name, count in resources.items())
    if not room:
        raise RuntimeUnavailableError(
            f"A worker needs {resources['num_cpus']} CPUs; there are {found.get('CPU', 0):g}.",
            "Give fewer --threads.",
        )
    return ray.data.ActorPoolStrategy(
        min_size=1,
        initial_size=min(units, room),
        max_size=units,
        max_tasks_in_flight_per_actor=2,  # one at work, one that is next
    )


def _open_model(files: Files, job: ClusterJob) -> Predictor:
    """The predictor of a copy that is removed once it is open."""
    with scratch_folder("edgetl-model") as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        predictor = Predictor(folder / Path(next(iter(files))).parts[0], **job.options)
        if predictor.model_id != job.model_id:
            raise BundleError(job.model, "it was replaced while the command was starting")
    return predictor


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(path, f"it can't be read ({error.strerror})") from error


def _summary(text: str) -> PartSummary:
    values = json.loads(text)
    if values["failure"] is not None:
        raise ResultsError(*values["failure"])
    return PartSummary(**values)


def _worker_error(error: Exception) -> EdgetlError:
    """What a user can make of an error of Ray, or of a worker that this code does not expect."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return RuntimeUnavailableError(
        f"A worker failed: {lines[-1].strip()}",  # above it is the traceback, from elsewhere
        "Every machine needs the edgetl of this one, with the extras ray and cpu. Give the same "
        "command again to continue.",
    )
