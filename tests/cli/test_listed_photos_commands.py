"""Lists of photos in the commands that classify and compare: as folders, and with their labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.pictures import photo

from edgetl import Predictor, check, evaluate
from edgetl.cli.main import command as program
from edgetl.errors import DataError


def edgetl(*arguments: object) -> Result:
    return CliRunner().invoke(program, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve photos in a folder that is named like no label."""
    (tmp_path / "photos").mkdir()
    for seed in range(12):
        photo(seed, 30 + seed, 20).save(tmp_path / f"photos/{seed}.png")
    return tmp_path / "photos"


@pytest.fixture
def listed(photos: Path, tiny_bundle: Path) -> Path:
    """A list, in another folder, in which nine of twelve labels are those that are predicted."""
    predictor = Predictor(tiny_bundle)
    rows = []
    for number in range(12):
        label = predictor(photos / f"{number}.png").label
        other = "plain" if label != "plain" else "two words"
        rows.append({"Image": f"{number}.png", "y": label if number < 9 else other})
    (photos.parent / "lists").mkdir()
    file = photos.parent / "lists/photos.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def options(photos: Path) -> list[str]:
    return ["--columns", "label=y", "--root", str(photos)]


def test_predict_takes_a_list_and_measures_by_its_labels(tiny_bundle, photos, listed):
    done = edgetl("predict", tiny_bundle, listed, *options(photos), "--json")
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["source"] for answer in answers] == [f"{photos}/{n}.png" for n in range(12)]
    assert "9 of 12" in done.stderr and "labels of the list" in done.stderr
    unlabelled = edgetl("predict", tiny_bundle, listed, "--root", photos)
    assert unlabelled.exit_code == 0 and "ccuracy" not in unlabelled.stderr


def test_predict_takes_a_text_file_of_paths(tiny_bundle, photos):
    (photos / "all.txt").write_text("1.png\n2.png\n\n1.png\n")
    done = edgetl("predict", tiny_bundle, photos / "all.txt", "--json")
    sources = [json.loads(line)["source"] for line in done.stdout.splitlines()]
    assert sources == [f"{photos}/1.png", f"{photos}/2.png"]


def test_without_a_column_of_labels_folders_below_the_list_are_the_labels(tiny_bundle, tmp_path):
    (tmp_path / "plain/deep").mkdir(parents=True)
    photo(0, 30, 20).save(tmp_path / "plain/deep/1.png")
    (tmp_path / "list.txt").write_text("plain/deep/1.png\n")
    answer = Predictor(tiny_bundle)(tmp_path / "plain/deep/1.png").label
    done = edgetl("predict", tiny_bundle, tmp_path / "list.txt", "--out", tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text())["truth"] == "plain"
    right = int(answer == "plain")
    assert f"{right} of 1), taking folder names" in done.stderr
    assert evaluate(tiny_bundle, tmp_path / "list.txt").accuracy == right


def test_missing_photos_are_failures_and_their_lines_are_named(tiny_bundle, photos, listed):
    (photos / "3.png").unlink()
    out = photos.parent / "answers.csv"
    done = edgetl("predict", tiny_bundle, listed, *options(photos), "--out", out)
    assert done.exit_code == 1
    assert f"not there:\n  line 4: {photos}/3.png" in done.stderr
    assert f"photos in {out}: 12" in done.stderr
    assert "1 of 12 photos could not be classified" in done.stderr
    again = edgetl("predict", tiny_bundle, listed, *options(photos), "--out", out)
    assert f"photos in {out}: 12" in again.stderr and "of them from before" in again.stderr


@pytest.mark.parametrize("name", ["photos", "\\ud800.png", "a\\u0000b.png"])
def test_what_is_no_photo_in_a_list_is_one_failure(tiny_bundle, photos, name):
    file = photos.parent / "photos.jsonl"
    file.write_text(f'{{"path": "{name}"}}\n{{"path": "photos/1.png"}}')
    for output in (["--json"], ["--out", str(photos.parent / "answers.csv")]):
        done = edgetl("predict", tiny_bundle, file, *output)
        assert done.exit_code == 1 and "1 of 2 photos could not be classified" in done.stderr


def test_shards_of_a_list_are_the_same_wherever_the_photos_are(tiny_bundle, photos, listed):
    moved = Path(shutil.copytree(photos, photos.parent / "moved"))
    found = {
        (root, shard): {
            Path(json.loads(line)["source"]).name
            for line in edgetl(
                "predict", tiny_bundle, listed, *options(root), "--shard", shard, "--json"
            ).stdout.splitlines()
        }
        for root in (photos, moved)
        for shard in ("1/2", "2/2")
    }
    for shard in ("1/2", "2/2"):
        assert found[photos, shard] == found[moved, shard]
    assert not found[photos, "1/2"] & found[photos, "2/2"]
    assert len(found[photos, "1/2"] | found[photos, "2/2"]) == 12


@pytest.mark.parametrize("command", ["predict", "bench", "check"])
def test_options_of_lists_are_refused_beside_a_folder(tiny_bundle, photos, command):
    place = [photos] if command == "predict" else ["--images", photos]
    done = edgetl(command, tiny_bundle, *place, "--columns", "path=file")
    assert done.exit_code in (1, 2)
    assert "--columns: no effect" in done.stderr and "is no list" in done.stderr


def test_options_of_lists_are_refused_without_photos(tiny_bundle):
    done = edgetl("bench", tiny_bundle, "--columns", "path=file")
    assert done.exit_code == 1 and "--columns: no effect, without a list" in done.stderr
    with pytest.raises(DataError, match="--root: no effect, without a list of photos"):
        check(tiny_bundle, root="photos")


def test_bench_takes_a_list(tiny_bundle, photos, listed):
    done = edgetl("bench", tiny_bundle, "--images", listed, *options(photos), "--runs", 2)
    assert done.exit_code == 0, done.output
    assert "12 photos" in done.stdout


def test_check_compares_bundles_by_the_labels_of_a_list(tiny_bundle, photos, listed):
    result = check(
        tiny_bundle,
        listed,
        against=tiny_bundle,
        max_accuracy_drop=0,
        columns={"label": "y"},
        root=photos,
    )
    assert result.passed and result.photos == 12
    assert (result.accuracy.new, result.accuracy.photos) == (0.75, 12)
    limited = edgetl(
        *("check", tiny_bundle, "--against", tiny_bundle, "--images", listed),
        *(*options(photos), "--limit", 4, "--max-accuracy-drop", 0),
    )
    assert limited.exit_code == 0, limited.output
    with pytest.raises(DataError, match="names 12 files that are not there"):
        check(tiny_bundle, listed, against=tiny_bundle)
