"""Photos for a cluster: some in folders named as labels, the same ones in shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers.shards import members, write_class_folders, write_tars

from edgetl import Predictor
from edgetl.cluster.cluster_job import ClusterJob, PartSummary
from edgetl.cluster.part_classifier import PartClassifier
from edgetl.cluster.work_unit import WorkUnit


class InProcess:
    """In the place of Ray's workers.

    units     that were classified
    stops_at  of how many parts the run is stopped after
    before    called with the number of each unit
    """

    def __init__(self) -> None:
        self.units: list[WorkUnit] = []
        self.stops_at: int | None = None
        self.before: Callable[[int], object] = lambda number: None

    def classify(
        self, _: object, job: ClusterJob, files: Mapping[str, bytes], units: Sequence[WorkUnit]
    ) -> Iterator[PartSummary]:
        parts = PartClassifier(job, Predictor(job.model, **job.options))
        for number, unit in enumerate(units):
            if number == self.stops_at:
                raise KeyboardInterrupt
            self.before(number)
            self.units.append(unit)
            yield parts.write(unit)


@pytest.fixture(scope="session")
def cluster_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 photos in folders named as labels of the tiny bundle, one of them damaged."""
    folder = write_class_folders(tmp_path_factory.mktemp("photos"), 199)
    (folder / "plain/damaged.jpg").write_bytes(b"\xff\xd8\xff and no more")
    return folder


@pytest.fixture(scope="session")
def cluster_shards(cluster_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same in eight tar shards; a pattern."""
    return write_tars(tmp_path_factory.mktemp("shards"), members(cluster_photos), 8)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """The units of ``edgetl predict --ray`` are classified in this process, one after the other."""
    found = InProcess()
    monkeypatch.setattr("edgetl.cluster.cluster_run.ray_cluster", lambda _: nullcontext())
    monkeypatch.setattr("edgetl.cluster.cluster_run.classify_units", found.classify)
    return found
