"""Photos from a real S3 protocol: moto's server, credentials and addresses from the environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.s3_server import S3Server, s3_server, use_s3_server
from helpers.shards import members, write_class_folders, write_tars

from edgetl.cli.main import command as program
from edgetl.errors import DataError
from edgetl.runtime.images import store
from edgetl.runtime.images.decode import may_pass
from edgetl.runtime.images.photo_places import photos_in
from edgetl.runtime.images.store import list_objects, read_object


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos in folders named as labels."""
    return write_class_folders(tmp_path_factory.mktemp("photos"), 6)


@pytest.fixture(scope="module")
def running(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[S3Server, str]]:
    """A server with the photos as objects, and in two shards."""
    shards = tmp_path_factory.mktemp("shards")
    write_tars(shards, members(photos), 2)
    with s3_server() as (server, address):
        owner = server.owner(address)
        owner.create_bucket(Bucket="pets")
        for folder, begin in ((photos, "photos"), (shards, "shards")):
            for path in folder.rglob("*.*"):
                key = f"{begin}/{path.relative_to(folder).as_posix()}"
                owner.put_object(Bucket="pets", Key=key, Body=path.read_bytes())
        yield server, address


@pytest.fixture
def server(
    running: tuple[S3Server, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[S3Server]:
    """The same, as the environment names it to S3's packages."""
    with use_s3_server(running, monkeypatch, tmp_path) as found:
        yield found


def predict(bundle: Path, place: object, *options: object) -> Result:
    arguments = ["predict", str(bundle), str(place), *map(str, options)]
    return CliRunner().invoke(program, arguments)


def answers(done: Result) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [{key: row[key] for key in row if key != "source"} for row in rows]


@pytest.mark.parametrize("place", ["s3://pets/photos", "s3://pets/shards/{000..001}.tar"])
def test_predict_answers_as_from_files_and_writes_nothing(tiny_bundle, photos, server, place):
    expected, found = predict(tiny_bundle, photos, "--json"), predict(tiny_bundle, place, "--json")
    assert answers(found) == answers(expected) and len(answers(found)) == 6, found.output
    assert (
        found.exit_code == 0
        and found.stderr.split("taking")[0] == expected.stderr.split("taking")[0]
    )
    assert {method for method, _ in server.log} <= {"GET", "HEAD"}
    assert all(path.startswith("/pets") for _, path in server.log)


@pytest.mark.parametrize("place", ["s3://pets/photos", "s3://pets/shards/*.tar"])
def test_a_store_that_answers_503_for_a_while_is_waited_for(photos, server, place):
    server.busy = 7
    found = photos_in(place)
    assert server.busy == 0
    assert sorted(listed.path.read_bytes() for listed in found) == sorted(
        path.read_bytes() for path in photos.rglob("*.png")
    )


def test_a_folder_is_listed_page_by_page_in_order(photos, server, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "4")
    listed = list_objects("s3://pets/photos/")
    assert next(listed).startswith("s3://pets/photos/")
    assert len(server.log) == 1  # the second page is asked for when it is needed
    expected = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert [name.removeprefix("s3://pets/photos/") for name in listed] == expected[1:]
    assert len(server.log) == 2


def test_a_photo_takes_one_request_and_is_not_read_on_for_ever(
    photos, server, running, monkeypatch
):
    server.owner(running[1]).put_object(Bucket="pets", Key="odd/empty.png", Body=b"")
    server.log.clear()
    name = next(photos.rglob("*.png")).relative_to(photos).as_posix()
    assert read_object(f"s3://pets/photos/{name}") == (photos / name).read_bytes()
    assert len(server.log) == 1
    assert read_object("s3://pets/odd/empty.png") == b""
    monkeypatch.setattr(store, "MAX_PHOTO_BYTES", 1 << 20)
    server.owner(running[1]).put_object(Bucket="pets", Key="odd/long.png", Body=bytes(2 << 20))
    with pytest.raises(OSError, match="it is longer than 1 MiB") as raised:
        read_object("s3://pets/odd/long.png")
    assert not may_pass(str(raised.value.strerror))


@pytest.mark.parametrize("place", ["s3://nowhere/photos", "s3://pets/other", "s3://pets/other.tar"])
def test_what_is_not_there_is_named(server, place):
    with pytest.raises(
        DataError, match=f"There is no {place}.\nCheck the address; does the bucket"
    ):
        photos_in(place)


def test_refused_credentials_are_named_with_the_next_step(server, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for place in ("s3://pets/photos", "s3://pets/shards/000.tar"):
        with pytest.raises(
            DataError, match=r"refuses access .*\nSet the store's usual credentials"
        ):
            photos_in(place)
