"""``edgetl predict --ray`` from a store to a store, which is busy or away for a while."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import fsspec
import pytest
import s3fs
from aiohttp import ClientResponseError
from click.testing import CliRunner, Result
from fsspec.implementations.memory import MemoryFileSystem
from helpers.result_tables import rows_of
from helpers.s3_server import S3Server, s3_server, use_s3_server

from edgetl.cli.main import command as program
from edgetl.cluster import part_classifier
from edgetl.errors import DataError
from edgetl.runtime.images.stored_path import as_place
from edgetl.runtime.images.unreadable import UNREACHABLE
from edgetl.system import remote_store


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["predict", *map(str, arguments)])


@pytest.fixture(scope="module")
def running(cluster_photos: Path, cluster_shards: str) -> Iterator[tuple[S3Server, str]]:
    """A server with a few of the photos as objects, and all of them in shards."""
    with s3_server() as (server, address):
        owner = server.owner(address)
        owner.create_bucket(Bucket="bulk")
        for shard in Path(cluster_shards).parent.glob("*.tar"):
            owner.put_object(Bucket="bulk", Key=f"shards/{shard.name}", Body=shard.read_bytes())
        for photo in sorted(cluster_photos.glob("plain/*"))[-40:]:
            owner.put_object(Bucket="bulk", Key=f"photos/{photo.name}", Body=photo.read_bytes())
        yield server, address


@pytest.fixture
def server(
    running: tuple[S3Server, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[S3Server]:
    with use_s3_server(running, monkeypatch, tmp_path) as found:
        yield found


def copied(server: S3Server, address: str, folder: Path) -> Path:
    """What is below s3://bulk/out, in a folder."""
    owner = server.owner(address)
    for entry in owner.list_objects_v2(Bucket="bulk", Prefix="out/")["Contents"]:
        target = folder / entry["Key"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(owner.get_object(Bucket="bulk", Key=entry["Key"])["Body"].read())
    return folder / "out"


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_busy_store_costs_no_row(tiny_bundle, running, server, without_ray, tmp_path, method):
    places = ("s3://bulk/shards/{000..007}.tar", "s3://bulk/photos")
    local = tmp_path / "local.parquet"
    predict(tiny_bundle, *places, "--out", local)
    without_ray.before = lambda number: setattr(server, "busy", 3 if number == 2 else 0)
    server.refused = (method,)
    done = predict(tiny_bundle, *places, "--out", "s3://bulk/out/", "--ray")
    server.refused, server.busy = ("GET",), 0
    assert "photos in s3://bulk/out/: 240" in done.stderr, done.output
    out = copied(server, running[1], tmp_path)
    assert rows_of(out) == rows_of(local)
    manifest = json.loads((out / "_manifest.json").read_bytes())
    assert manifest["complete"] is True and manifest["photos"] == 240
    again = predict(tiny_bundle, *places, "--out", "s3://bulk/out", "--ray")
    assert "240, 240 of them from before" in again.stderr
    for entry in server.owner(running[1]).list_objects_v2(Bucket="bulk", Prefix="out/")["Contents"]:
        server.owner(running[1]).delete_object(Bucket="bulk", Key=entry["Key"])


def test_a_place_that_cant_be_written_is_named_before_anything_is_classified(
    tiny_bundle, cluster_photos, server, without_ray, monkeypatch
):
    done = predict(tiny_bundle, cluster_photos, "--out", "s3://nowhere/out", "--ray")
    assert done.exit_code == 1 and "does the bucket exist?" in done.stderr
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    done = predict(tiny_bundle, cluster_photos, "--out", "s3://bulk/refused", "--ray")
    assert done.exit_code == 1 and "Set the store's usual credentials" in done.stderr
    assert without_ray.units == []


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, cluster_photos: Path) -> list[int]:
    """A store in memory with 12 photos, that so many of the next reads fail of."""
    memory, left = fsspec.filesystem("memory"), [0]
    for photo in sorted(cluster_photos.glob("plain/*.png"))[:12]:
        memory.pipe(f"/away/{photo.name}", photo.read_bytes())
    original = MemoryFileSystem.cat_file

    def cat_file(*arguments: object, **options: object) -> bytes:
        if left[0] > 0 and "/away/" in str(arguments[1]):
            left[0] -= 1
            raise OSError("Please reduce your request rate.")
        return bytes(original(*arguments, **options))

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    monkeypatch.setattr(remote_store, "PAUSES", (0.001,) * 2)
    monkeypatch.setattr(remote_store, "PATIENT_PAUSES", (0.001,) * 100)
    return left


def test_a_store_that_is_away_longer_than_reads_are_repeated_is_waited_for(
    tiny_bundle, away, without_ray, tmp_path
):
    away[0] = 60
    done = predict(tiny_bundle, "memory://away", "--out", tmp_path / "out", "--ray")
    assert done.exit_code == 0 and away[0] == 0
    assert [row["error"] for row in rows_of(tmp_path / "out")] == [None] * 12


def test_photos_of_a_store_that_stays_away_are_tried_again_by_the_next_run(
    tiny_bundle, away, without_ray, tmp_path
):
    out = tmp_path / "out"
    away[0] = 1_000
    done = predict(tiny_bundle, "memory://away", "--out", out, "--ray")
    assert done.exit_code == 1
    assert [row["error"] for row in rows_of(out)] == [UNREACHABLE] * 12
    away[0] = 0
    done = predict(tiny_bundle, "memory://away", "--out", out, "--ray")
    assert done.exit_code == 0 and ": 12\n" in done.stderr
    assert [row["error"] for row in rows_of(out)] == [None] * 12


def test_a_shard_on_the_web_that_answers_503_is_away_and_not_missing():
    missing = FileNotFoundError("https://pets/000.tar")  # as fsspec says
    missing.__cause__ = ClientResponseError(Mock(), (), status=503)
    error = DataError("https://pets/000.tar can't be read.")
    error.__cause__ = missing
    reason = part_classifier._reason(as_place("https://pets/000.tar"), error)
    assert reason.strerror == UNREACHABLE
