"""Photos in shards and stores in the commands that classify: the same answers as from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner, Result
from fsspec.implementations.memory import MemoryFileSystem
from helpers.shards import members, write_class_folders, write_parquet, write_tar, write_tars

from edgetl import evaluate
from edgetl.cli.main import command as program
from edgetl.runtime.images.unreadable import UNREACHABLE
from edgetl.system import remote_store


def edgetl(*arguments: object) -> Result:
    return CliRunner().invoke(program, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photos in folders named as labels, one of them damaged."""
    folder = write_class_folders(tmp_path_factory.mktemp("photos"), 8)
    (folder / "plain/5-damaged.jpg").write_bytes(b"\xff\xd8\xff and no more")
    return folder


@pytest.fixture(scope="module")
def places(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every way to name these photos that is no folder; kind → name."""
    folder = tmp_path_factory.mktemp("shards")
    files = {path: path.read_bytes() for path in sorted(photos.glob("*/*"))}
    found = {
        "tars": write_tars(folder / "tars", members(photos), 3),
        "tgz": str(write_tar(folder / "photos.tgz", members(photos, label=""))),
        "parquet": str(write_parquet(folder / "photos.parquet", photos)),
    }
    memory = fsspec.filesystem("memory")
    for path, content in files.items():
        memory.pipe(f"/pets/{path.relative_to(photos)}", content)
    rows = [f"pets/{path.relative_to(photos)},{path.parent.name}\n" for path in files]
    memory.pipe("/list.csv", "".join(["path,label\n", *rows]).encode())
    absolute = [row.replace("pets/", "memory://pets/", 1) for row in rows]
    (folder / "addresses.csv").write_text("".join(["path,label\n", *absolute]))
    for path in folder.rglob("*.*"):
        if path.suffix in (".tar", ".parquet"):
            memory.pipe(f"/shards/{path.name}", path.read_bytes())
    return {
        **found,
        "folder in a store": "memory://pets",
        "tars in a store": "memory://shards/{000..002}.tar",
        "pattern in a store": "memory://shards/*.tar",
        "parquet in a store": "memory://shards/photos.parquet",
        "list in a store": "memory://list.csv",
        "list of addresses": str(folder / "addresses.csv"),
    }


KINDS = (
    *("tars", "tgz", "parquet", "folder in a store", "tars in a store", "pattern in a store"),
    *("parquet in a store", "list in a store", "list of addresses"),
)


def without_names(text: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in text.splitlines()]
    return [{key: row[key] for key in row if key != "source"} for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_predict_answers_as_from_files(tiny_bundle, photos, places, kind, tmp_path):
    expected = edgetl("predict", tiny_bundle, photos, "--json")
    found = edgetl("predict", tiny_bundle, places[kind], "--json")
    assert without_names(found.stdout) == without_names(expected.stdout)
    assert len(without_names(found.stdout)) == 9
    accuracy, of_files = (done.stderr.partition("taking")[0] for done in (found, expected))
    assert accuracy == of_files != "" and found.exit_code == expected.exit_code == 1


@pytest.mark.parametrize("kind", ["tars", "parquet in a store", "folder in a store"])
def test_a_run_that_was_stopped_goes_on_in_the_same_shards(tiny_bundle, places, kind, tmp_path):
    out = tmp_path / "answers.jsonl"
    edgetl("predict", tiny_bundle, places[kind], "--out", out)
    whole = out.read_text().splitlines(keepends=True)
    assert len(whole) == 9 and sum('"truth"' in row for row in whole) == 9
    out.write_text("".join(whole[:4]))
    again = edgetl("predict", tiny_bundle, places[kind], "--out", out)
    assert "9, 4 of them from before" in again.stderr
    assert out.read_text().splitlines(keepends=True) == whole


def test_places_in_a_store_that_overlap_give_each_photo_one_row(tiny_bundle, places, tmp_path):
    out = tmp_path / "answers.jsonl"
    folders = ("memory://pets/plain", "memory://pets", places["list of addresses"])
    shards = ("memory://shards/00*.tar", "memory://shards/{001..002}.tar")
    edgetl("predict", tiny_bundle, *folders, *shards, "--out", out)
    sources = [json.loads(line)["source"] for line in out.read_text().splitlines()]
    assert len(sources) == len(set(sources)) == 18


def test_an_object_with_two_slashes_in_its_name_has_one_row(tiny_bundle, photos, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/slashes/pets//1.png", (photos / "plain/1.png").read_bytes())
    for _ in range(2):
        edgetl("predict", tiny_bundle, "memory://slashes", "--out", tmp_path / "answers.jsonl")
    (row,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert json.loads(row)["source"] == "memory://slashes/pets//1.png"


def test_parts_of_a_job_take_each_photo_once(tiny_bundle, places):
    whole = edgetl("predict", tiny_bundle, places["tars"], "--json").stdout.splitlines()
    parts = [
        edgetl("predict", tiny_bundle, places["tars"], "--json", "--shard", f"{i}/3").stdout
        for i in (1, 2, 3)
    ]
    assert sorted("".join(parts).splitlines()) == sorted(whole) and all(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_measures_as_on_files(tiny_bundle, photos, places, kind):
    expected, found = evaluate(tiny_bundle, photos), evaluate(tiny_bundle, places[kind])
    assert found.metrics == expected.metrics and len(found.failed) == 1
    assert [path.read_bytes() for path in found.paths] == [
        path.read_bytes() for path in expected.paths
    ]


def test_photos_marked_as_test_are_those_that_are_evaluated(tiny_bundle, photos, tmp_path):
    samples = [
        [*sample, (f"{number:04}.json", json.dumps({"split": split, "label": "plain"}).encode())]
        for number, (sample, split) in enumerate(
            zip(members(photos, label="")[:4], ("train", "test", "val", "test"), strict=True)
        )
    ]
    for number, sample in enumerate(samples):
        sample[0] = (f"{number:04}.png", sample[0][1])
    found = evaluate(tiny_bundle, write_tar(tmp_path / "all.tar", samples))
    assert found.files == ("all.tar/0001.png", "all.tar/0003.png")


def test_shards_named_test_are_those_that_are_evaluated(tiny_bundle, photos, tmp_path):
    for name, part in (("pets-train-0", slice(0, 5)), ("pets-test-0", slice(5, 8))):
        write_tar(tmp_path / f"{name}.tar", members(photos)[part])
    found = evaluate(tiny_bundle, tmp_path / "*.tar")
    shards = [name.partition("/")[0] for name in (*found.files, *found.failed)]
    assert shards == ["pets-test-0.tar"] * 3


def test_bench_takes_shards(tiny_bundle, photos, tmp_path):
    shard = write_tar(tmp_path / "two.tar", members(photos)[:2])
    done = edgetl("bench", tiny_bundle, "--images", shard, "--runs", 2)
    assert done.exit_code == 0 and "2 photo" in done.stdout, done.output
    wrong = edgetl("bench", tiny_bundle, "--images", "nothing/here")
    assert wrong.exit_code == 2 and "does not exist" in wrong.stderr


def test_a_shard_that_ends_early_is_a_row_after_its_photos(tiny_bundle, photos, tmp_path):
    shard = write_tar(tmp_path / "0.tar", members(photos))
    shard.write_bytes(shard.read_bytes()[:6000])
    write_tar(tmp_path / "1.tar", members(photos))
    done = edgetl("predict", tiny_bundle, tmp_path / "{0..1}.tar", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [number for number, row in enumerate(rows) if row["source"] == str(shard)]
    assert len(bad) == 1 and "ends early" in rows[bad[0]]["error"]
    assert 0 < bad[0] < 9 and len(rows) == bad[0] + 1 + 9 and done.exit_code == 1
    refused = edgetl("evaluate", tiny_bundle, tmp_path / "{0..1}.tar")
    assert refused.exit_code == 1 and "ends early" in refused.stderr


def test_an_object_that_is_gone_is_a_row(tiny_bundle, tmp_path):
    fsspec.filesystem("memory").pipe("/few/1.png", b"no photo")
    (tmp_path / "list.txt").write_text("memory://few/1.png\nmemory://few/2.png\n")
    done = edgetl("predict", tiny_bundle, tmp_path / "list.txt", "--json")
    errors = [row["error"] for row in without_names(done.stdout)]
    assert "not an image" in errors[0] and errors[1] == "no such file or directory"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Errors that reading from memory:// raises next, one each time."""
    errors: list[Exception] = []
    original = MemoryFileSystem.cat_file

    def cat_file(*arguments: Any, **options: Any) -> bytes:
        if errors:
            raise errors.pop()
        return bytes(original(*arguments, **options))

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    monkeypatch.setattr(remote_store, "PAUSES", (0, 0, 0))
    return errors


def test_reading_is_tried_again(tiny_bundle, places, failing):
    failing += [TimeoutError(), ConnectionError()]
    done = edgetl("predict", tiny_bundle, places["folder in a store"], "--json")
    assert sum("error" in row for row in without_names(done.stdout)) == 1


def test_a_store_that_stays_away_is_tried_again_by_the_next_run(
    tiny_bundle, places, failing, tmp_path
):
    out = tmp_path / "answers.jsonl"
    failing += [ConnectionError()] * 1000
    done = edgetl("predict", tiny_bundle, places["folder in a store"], "--out", out)
    assert {row["error"] for row in without_names(out.read_text())} == {UNREACHABLE}
    assert done.exit_code == 1 and len(failing) > 1000 - 4 * 9, "the last ones are tried once"
    failing.clear()
    edgetl("predict", tiny_bundle, places["folder in a store"], "--out", out)
    assert sum("error" in row for row in without_names(out.read_text())) == 1


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("place", "problem", "step"),
    [
        ("memory://nothing/here", "There is no memory://nothing/here", "Check the address"),
        ("memory://nothing/here.tar", "There is no memory://nothing/here.tar", "Check the address"),
        ("memory://nothing/*.tar", "There is no memory://nothing/*.tar", "Check the pattern"),
        ("nosuch://bucket/a.tar", "nosuch:// is no kind of address", "s3://"),
        ("none/*.tar", "There is no none/*.tar", "Check the pattern"),
    ],
)
def test_what_is_not_there_is_one_clear_error(tiny_bundle, command, place, problem, step):
    done = edgetl(command, tiny_bundle, place)
    assert done.exit_code == 1 and problem in done.stderr and step in done.stderr
    assert "Traceback" not in done.output


def test_a_missing_extra_names_its_install_command(tiny_bundle, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    done = edgetl("predict", tiny_bundle, "s3://bucket/photos")
    assert done.exit_code == 1 and 'pip install "edgetl[remote]"' in done.stderr


@pytest.mark.parametrize("options", [["--root", "x"], ["--keep-doubtful", "x", "3"]])
def test_options_that_shards_do_not_have_are_refused(tiny_bundle, places, options):
    done = edgetl("predict", tiny_bundle, places["tars"], *options)
    assert done.exit_code in (1, 2) and options[0] in done.stderr
