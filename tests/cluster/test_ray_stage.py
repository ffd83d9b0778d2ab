"""What Ray is asked for, and what its actors answer; without Ray's processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from helpers.result_tables import rows_of

from edgetl import Predictor
from edgetl.cluster import ray_stage
from edgetl.cluster.cluster_job import ClusterJob
from edgetl.cluster.destination import Destination
from edgetl.cluster.ray_stage import PhotoClassifier, model_files
from edgetl.cluster.run_manifest import RunManifest
from edgetl.cluster.work_unit import WorkUnit, photo_units, photos_outside_shards
from edgetl.errors import BundleError, PredictionError, RuntimeUnavailableError
from edgetl.runtime.results.records import columns


@pytest.fixture
def job(tiny_bundle: Path, tmp_path: Path) -> ClusterJob:
    """One that was begun in ``tmp_path``/out."""
    predictor = Predictor(tiny_bundle, threads=1, providers="cpu")
    out = Destination(str(tmp_path / "out"))
    manifest = RunManifest(out, predictor.model_id, predictor.labels, {})
    manifest.begin()
    return ClusterJob(
        destination=out.name,
        run=manifest.run,
        model=str(tiny_bundle),
        model_id=predictor.model_id,
        options=predictor.options,
        columns=tuple(columns(predictor.labels)),
        folder=str(Path.cwd()),
    )


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function (job, unit, files) → the summary of an actor."""
    monkeypatch.setattr("ray.get", lambda found: found)

    def write(job: ClusterJob, unit: Any, files: Any = None) -> dict[str, Any]:
        files = files or model_files(Predictor(job.model))
        answer = PhotoClassifier(job, files)({"unit": [unit.to_json()]})
        found: dict[str, Any] = json.loads(answer["summary"][0])
        return found

    return write


@pytest.fixture
def unit(cluster_photos: Path) -> Any:
    return photo_units(photos_outside_shards([str(cluster_photos)]), (), {})[0]


def test_an_actor_writes_its_part_with_a_model_that_needs_no_folder(job, actor, unit, tmp_path):
    summary = actor(job, unit)
    assert summary["failure"] is None and summary["photos"] == summary["new"] == len(unit.photos)
    assert len(rows_of(tmp_path / "out" / unit.part)) == len(unit.photos)
    written = (tmp_path / "out" / unit.part).read_bytes()
    assert actor(job, unit) == summary  # as where Ray repeats it
    assert actor(job, replace(unit, was_there=True))["new"] == 0
    assert (tmp_path / "out" / unit.part).read_bytes() == written


def test_a_part_of_another_run_that_lacks_photos_gets_their_rows(job, actor, unit, tmp_path):
    actor(job, replace(unit, photos=unit.photos[:3]))
    assert actor(job, unit)["photos"] == len(rows_of(tmp_path / "out")) == len(unit.photos)


def test_an_actor_says_what_ends_the_run(job, actor, unit):
    elsewhere = replace(job, places=("/nowhere/photos",))
    assert "does not have /nowhere/photos" in actor(elsewhere, unit)["failure"][0]
    another = replace(job, run="0")
    assert "Another run writes to" in actor(another, unit)["failure"][0]
    other_disk = replace(job, destination=job.destination + "-of-another-machine")
    assert "not the same folder on every machine" in actor(other_disk, unit)["failure"][0]
    damaged = {name: content[:-1] for name, content in model_files(Predictor(job.model)).items()}
    assert "manifest.json" in actor(job, unit, damaged)["failure"][0]


def test_a_photo_that_the_model_fails_on_is_a_row_that_names_the_bundle(
    job, actor, unit, monkeypatch, tmp_path
):
    def fails(predictor: Predictor, sources: Any, **_: object) -> Any:
        for source in sources:
            yield PredictionError(str(source), predictor.path, "the model failed: no memory")

    monkeypatch.setattr(Predictor, "batch", fails)
    assert actor(job, unit)["failed"] == len(unit.photos)
    (error,) = {row["error"] for row in rows_of(tmp_path / "out" / unit.part)}
    assert error == f"{job.model}: the model failed: no memory"


def test_a_lone_model_is_sent_as_well(job, actor, unit, tiny_bundle):
    model = tiny_bundle / "model.onnx"
    lone = Predictor(model)
    summary = actor(replace(job, model=str(model), model_id=lone.model_id), unit)
    assert summary["failure"] is None and summary["classified"] == summary["photos"]


def cluster(**resources: float) -> Any:
    pool = SimpleNamespace(ActorPoolStrategy=lambda **values: values)
    return SimpleNamespace(cluster_resources=lambda: resources, data=pool)


def test_an_actor_takes_a_core_or_a_gpu_with_its_share_of_the_cores(job):
    with_gpu = cluster(CPU=32, GPU=4)
    assert ray_stage._resources(with_gpu, job) == {"num_cpus": 1}
    cuda = replace(job, options={**job.options, "providers": ["cuda", "cpu"]})
    asked = ray_stage._resources(with_gpu, cuda)
    assert asked == {"num_cpus": 8, "num_gpus": 1}
    assert ray_stage._pool(with_gpu, 100, asked)["initial_size"] == 4
    assert ray_stage._pool(with_gpu, 3, {"num_cpus": 1})["initial_size"] == 3
    with pytest.raises(RuntimeUnavailableError, match="No machine of the cluster has a GPU"):
        ray_stage._resources(cluster(CPU=2), cuda)
    with pytest.raises(RuntimeUnavailableError, match="A worker needs 3 CPUs; there are 2"):
        ray_stage._pool(cluster(CPU=2), 9, {"num_cpus": 3})


@pytest.mark.parametrize(("cores", "tasks"), [(2, 5_000), (300, 6_000), (1_000, 7_000)])
def test_every_worker_has_many_tasks_so_that_none_waits_long_in_the_end(job, cores, tasks):
    asked: list[int] = []
    ray = MagicMock()
    ray.cluster_resources.return_value = {"CPU": cores}
    ray.data.ActorPoolStrategy = SimpleNamespace
    ray.exceptions.RayError = RuntimeError
    ray.data.from_items = lambda rows, override_num_blocks: asked.append(override_num_blocks) or ray
    units = [WorkUnit(f"part-{number}.parquet") for number in range(7_000)]
    assert list(ray_stage.classify_units(ray, job, {}, units)) == []
    assert asked == [tasks]


def test_an_error_of_a_worker_is_one_line_without_its_traceback():
    text = "The actor died\ntraceback: Traceback (most recent call last):\n  File\nNameError: x\n"
    error = ray_stage._worker_error(RuntimeError(text))
    assert error.message == "A worker failed: NameError: x" and "extras ray" in str(error.hint)
    assert ray_stage._worker_error(RuntimeError()).message == "A worker failed: RuntimeError"


def test_a_model_that_is_gone_is_named(job, tiny_bundle, bundle_copy):
    predictor = Predictor(bundle_copy)
    (bundle_copy / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model.onnx: it can't be read"):
        model_files(predictor)
