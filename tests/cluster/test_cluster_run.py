"""``edgetl predict --ray``: the rows of one machine, once each, also if a run was stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.pictures import photo
from helpers.result_tables import manifest_of, rows_of

from edgetl.cli.main import command as program


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["predict", *map(str, arguments)])


@pytest.fixture(scope="module")
def expected(tiny_bundle: Path, cluster_photos: Path, tmp_path_factory: pytest.TempPathFactory):
    """The local command's rows."""
    out = tmp_path_factory.mktemp("local") / "answers.parquet"
    assert predict(tiny_bundle, cluster_photos, "--out", out).exit_code == 1
    return rows_of(out)


@pytest.fixture(scope="module")
def expected_of_shards(
    tiny_bundle: Path, cluster_shards: str, tmp_path_factory: pytest.TempPathFactory
):
    out = tmp_path_factory.mktemp("local") / "answers.parquet"
    assert predict(tiny_bundle, cluster_shards, "--out", out).exit_code == 1
    return rows_of(out)


def test_rows_are_those_of_one_machine(
    tiny_bundle, cluster_photos, expected, without_ray, tmp_path
):
    done = predict(tiny_bundle, cluster_photos, "--out", tmp_path / "out", "--ray")
    assert done.exit_code == 1 and done.stdout == ""
    assert f"photos in {tmp_path / 'out'}: 200\n" in done.stderr
    assert "taking folder names as true labels\n" in done.stderr
    assert "1 of 200 photos could not be classified" in done.stderr
    assert rows_of(tmp_path / "out") == expected
    manifest = manifest_of(tmp_path / "out")
    counts = (manifest["photos"], manifest["failed"], manifest["parts"], manifest["complete"])
    assert counts == (200, 1, len(without_ray.units), True)


@pytest.mark.parametrize("stops_at", [0, 1, 5])
def test_a_stopped_run_is_continued(
    tiny_bundle, cluster_photos, expected, without_ray, tmp_path, stops_at
):
    out = tmp_path / "out"
    without_ray.stops_at = stops_at
    stopped = predict(tiny_bundle, cluster_photos, "--out", out, "--ray")
    assert stopped.exit_code == 1
    assert f"{out} is not complete; the same command continues it." in stopped.stderr
    assert manifest_of(out)["complete"] is False
    known = len(rows_of(out)) if stops_at else 0
    without_ray.stops_at = None
    done = predict(tiny_bundle, cluster_photos, "--out", out, "--ray")
    before = f", {known} of them from before" if known else ""
    assert f"photos in {out}: 200{before}\n" in done.stderr
    assert rows_of(out) == expected and manifest_of(out)["complete"] is True
    photos = [photo.source for unit in without_ray.units for photo in unit.photos]
    assert len(photos) == len(set(photos)) == 200  # none was classified twice


def test_shards_are_continued_and_looked_into_without_being_read_again(
    tiny_bundle, cluster_shards, expected_of_shards, without_ray, tmp_path
):
    out = tmp_path / "out"
    without_ray.stops_at = 3
    predict(tiny_bundle, cluster_shards, "--out", out, "--ray")
    without_ray.stops_at = None
    parts = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    done = predict(tiny_bundle, cluster_shards, "--out", out, "--ray")
    assert len(parts) == 3 and all(path.stat().st_mtime_ns == parts[path] for path in parts)
    assert rows_of(out) == expected_of_shards
    assert "photos in" in done.stderr and "75 of them from before" in done.stderr
    assert "taking the labels of shards or folders as true ones, of the new photos" in done.stderr
    assert manifest_of(out)["photos"] == 200 and manifest_of(out)["failed"] == 1


def test_photos_that_were_added_get_parts_of_their_own(
    tiny_bundle, cluster_photos, expected, without_ray, tmp_path
):
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(cluster_photos, photos)
    predict(tiny_bundle, photos, "--out", out, "--ray")
    for number in range(3):  # in the order of the list, before and between the others
        photo(number, 20, 20).save(photos / "plain" / f"{number}-added.png")
    predict(tiny_bundle, photos, "--out", out, "--ray")
    local = tmp_path / "local.parquet"
    predict(tiny_bundle, photos, "--out", local)
    assert rows_of(out) == rows_of(local) and len(rows_of(out)) == 203
    done = predict(tiny_bundle, photos, cluster_photos, "--out", out, "--ray")
    assert ": 403, 203 of them from before" in done.stderr


def test_rows_of_runs_that_wrote_at_the_same_time_are_one_a_photo_after_the_next_run(
    tiny_bundle, cluster_photos, expected, without_ray, tmp_path
):
    photos = sorted(cluster_photos.glob("*/*"))
    away = tmp_path / "away.png"  # has a row that may pass in both
    for name, chosen in (("one", [away, *photos[:80]]), ("two", [*photos[40:120], away])):
        predict(tiny_bundle, *chosen, "--out", tmp_path / name, "--ray")
    for part in (tmp_path / "two").glob("part-*"):
        shutil.copy(part, tmp_path / "one")
    assert len(rows_of(tmp_path / "one")) == 162
    predict(tiny_bundle, cluster_photos, "--out", tmp_path / "one", "--ray")
    rows = [row for row in rows_of(tmp_path / "one") if row["source"] != str(away)]
    assert rows == expected and len(rows_of(tmp_path / "one")) == 201
    manifest = manifest_of(tmp_path / "one")
    assert (manifest["photos"], manifest["failed"], manifest["complete"]) == (201, 2, True)


def test_a_worker_that_outlives_its_run_writes_no_more(
    tiny_bundle, cluster_photos, without_ray, tmp_path
):
    out = tmp_path / "out"

    def next_run_begins(number: int) -> None:
        if number == 2:
            found = manifest_of(out)
            (out / "_manifest.json").write_text(json.dumps({**found, "run": "the next one"}))

    without_ray.before = next_run_begins
    done = predict(tiny_bundle, cluster_photos, "--out", out, "--ray")
    assert done.exit_code == 1 and f"Another run writes to {out}" in done.stderr
    assert len(list(out.glob("part-*"))) == 2


def test_a_wrong_name_is_no_photo_that_cannot_be_read(tiny_bundle, without_ray, tmp_path):
    done = predict(tiny_bundle, tmp_path / "phtoos", "--out", tmp_path / "out", "--ray")
    assert done.exit_code == 1 and f"There is no {tmp_path / 'phtoos'}" in done.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_is_begun_without_ray(tiny_bundle, cluster_photos, tmp_path, monkeypatch):
    monkeypatch.setattr("edgetl.system.missing_package.find_spec", lambda _: None)
    done = predict(tiny_bundle, cluster_photos, "--out", tmp_path / "out", "--ray")
    assert done.exit_code == 1 and "--ray needs the extra ray" in done.stderr
    assert not (tmp_path / "out").exists()


def test_ray_in_front_of_the_photos_says_where_it_goes(tiny_bundle, cluster_photos, tmp_path):
    done = predict(tiny_bundle, "--ray", cluster_photos, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "give --ray last" in done.stderr


def test_a_photo_that_may_be_readable_now_is_tried_again(
    tiny_bundle, cluster_photos, without_ray, tmp_path
):
    listed = [cluster_photos / "plain/1.png", tmp_path / "late.png", cluster_photos / "plain/3.png"]
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in listed))
    out = tmp_path / "out"
    first = predict(tiny_bundle, tmp_path / "list.txt", "--out", out, "--ray")
    assert first.exit_code == 1 and manifest_of(out)["failed"] == 1
    photo(7, 20, 20).save(tmp_path / "late.png")
    again = predict(tiny_bundle, tmp_path / "list.txt", "--out", out, "--ray")
    assert again.exit_code == 0 and ": 3, 2 of them from before" in again.stderr
    assert [row["error"] for row in rows_of(out)] == [None] * 3
    assert manifest_of(out)["failed"] == 0 and manifest_of(out)["parts"] == 1
    assert [len(unit.photos) for unit in without_ray.units] == [3, 1]


def test_a_shard_that_may_be_readable_now_is_tried_again(
    tiny_bundle, cluster_shards, expected_of_shards, without_ray, tmp_path
):
    shards, out = Path(cluster_shards).parent, tmp_path / "out"
    hidden = shards / "004.tar"
    hidden.rename(shards / "away")
    try:
        predict(tiny_bundle, cluster_shards, "--out", out, "--ray")
        failed = [row["source"] for row in rows_of(out) if row["error"] is not None]
        assert str(hidden) in failed and len(rows_of(out)) == 200 - 25 + 1
    finally:
        (shards / "away").rename(hidden)
    predict(tiny_bundle, cluster_shards, "--out", out, "--ray")
    assert rows_of(out) == expected_of_shards and manifest_of(out)["photos"] == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--ray needs --out"),
        (("--out", "https://localhost/out"), "web servers take no files"),
        (("--out", "{file}"), "is a file; --ray writes many"),
        (("--out", "{out}", "--shard", "1/2"), "--shard has no effect with --ray"),
        (("--out", "{out}", "--keep-doubtful", "{out}", "3"), "--keep-doubtful has no effect"),
        (("--out", "{out}", "--json"), "leave out --top and --json"),
    ],
)
def test_what_has_no_meaning_on_a_cluster_is_refused(
    tiny_bundle, cluster_photos, tmp_path, arguments, message
):
    (tmp_path / "answers.parquet").write_bytes(b"")
    places = {"{file}": tmp_path / "answers.parquet", "{out}": tmp_path / "out"}
    given = [places.get(argument, argument) for argument in arguments]
    done = predict(tiny_bundle, cluster_photos, *given, "--ray")
    assert done.exit_code == 2 and message in done.stderr
    assert not (tmp_path / "out").exists()
