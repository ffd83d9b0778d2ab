"""``edgetl predict --out``: many photos, several machines, and runs that are killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.pictures import photo
from PIL import Image

from edgetl.cli.main import command as program


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["predict", *map(str, arguments)])


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """599 names of four photos, and one file that is not a photo."""
    folder = tmp_path_factory.mktemp("many")
    for seed in range(4):
        photo(seed, 30 + seed, 20).save(folder / f"{seed}.png")
    (folder / "bad.png").write_bytes(b"no photo")
    for number in range(595):
        place = folder / f"{number % 7}"
        place.mkdir(exist_ok=True)
        os.link(folder / f"{number % 4}.png", place / f"{number}.png")
    return folder


def test_every_photo_is_written_once_in_order(
    tiny_bundle: Path, many_photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    result = predict(tiny_bundle, many_photos, "--out", out)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"photos in {out}: 600" in result.stderr
    assert "1 of 600 photos could not be classified" in result.stderr
    sources = [row["source"] for row in rows(out)]
    assert len(sources) == len(set(sources)) == 600
    assert sources == sorted(str(path) for path in many_photos.rglob("*.png"))
    assert len({row["model"] for row in rows(out)}) == 1
    (failed,) = [row for row in rows(out) if "error" in row]
    assert failed["source"] == str(many_photos / "bad.png")


@pytest.mark.parametrize("option", ["-o", "--out", "--output"])
def test_the_output_file_has_the_option_names_of_other_commands(
    tiny_bundle: Path, tmp_path: Path, option: str
) -> None:
    photo(1).save(tmp_path / "a.png")
    assert (
        predict(tiny_bundle, tmp_path / "a.png", option, tmp_path / "results.jsonl").exit_code == 0
    )
    assert len(rows(tmp_path / "results.jsonl")) == 1


def test_a_photo_that_was_not_there_is_tried_again_and_a_damaged_one_is_not(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    out, late, bad = (tmp_path / name for name in ("results.jsonl", "late.png", "bad.png"))
    bad.write_bytes(b"no photo")
    photo(1).save(tmp_path / "a.png")
    command = (tiny_bundle, tmp_path / "a.png", late, bad, "--out", out)
    assert "2 of 3 photos could not be classified" in predict(*command).stderr
    photo(2).save(late)
    before = bad.read_bytes(), rows(out)[2]
    again = predict(*command)
    assert f"photos in {out}: 3, 2 of them from before" in again.stderr
    assert "1 of 3 photos could not be classified" in again.stderr
    assert [Path(str(row["source"])).name for row in rows(out)] == ["a.png", "bad.png", "late.png"]
    assert (bad.read_bytes(), rows(out)[1]) == before and "label" in rows(out)[2]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_killed_run_continues_and_gives_the_same_file(
    tiny_bundle: Path, many_photos: Path, tmp_path: Path, suffix: str
) -> None:
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"killed.{suffix}"
    predict(tiny_bundle, many_photos, "--out", whole)
    growing = out if suffix != "parquet" else out.with_name(out.name + ".partial")
    kills = 0
    for more in (1, 20_000):
        command = [
            sys.executable,
            "-m",
            "edgetl",
            "predict",
            tiny_bundle,
            many_photos,
            "--out",
            out,
        ]
        before = growing.stat().st_size if growing.exists() else 0
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and not (
                growing.exists() and growing.stat().st_size >= before + more
            ):
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    result = predict(tiny_bundle, many_photos, "--out", out)
    assert kills, "every run was over before it could be killed"
    assert ", " in result.stderr
    assert "of them from before" in result.stderr
    assert out.read_bytes() == whole.read_bytes() or suffix == "parquet"
    if suffix == "parquet":
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(out).equals(pyarrow.parquet.read_table(whole))
    again = predict(tiny_bundle, many_photos, "--out", out)
    assert "600 of them from before" in again.stderr
    assert again.exit_code == 1, "one photo failed, though not in this run"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_photo_that_changed_after_its_answer_gives_a_warning_and_a_missing_one_does_not(
    tiny_bundle: Path, tmp_path: Path, suffix: str
) -> None:
    out, photo, other = (
        tmp_path / f"answers.{suffix}",
        tmp_path / "latest.png",
        tmp_path / "other.png",
    )
    for path in (photo, other):
        Image.new("RGB", (8, 8)).save(path)
    predict(tiny_bundle, photo, other, "--out", out)
    before = out.read_bytes()
    assert "the old answers stand" not in predict(tiny_bundle, photo, other, "--out", out).stderr
    later = out.stat().st_mtime + 0.01
    os.utime(photo, (later, later))
    time.sleep(0.02)
    other.unlink()
    for _ in range(2):  # as long as nothing new is written
        again = predict(tiny_bundle, photo, other, "--out", out)
    assert again.exit_code == 0
    assert (
        f"the old answers stand, though 1 photo changed since {out} was written, {photo} first"
        in again.stderr
    )
    assert out.read_bytes() == before


def test_all_shards_together_have_every_photo_once(
    tiny_bundle: Path, many_photos: Path, tmp_path: Path
) -> None:
    parts = []
    for index in (1, 2, 3):
        out = tmp_path / f"part{index}.jsonl"
        predict(tiny_bundle, many_photos, "--out", out, "--shard", f"{index}/3")
        parts.append({row["source"] for row in rows(out)})
    assert sum(map(len, parts)) == len(set.union(*parts)) == 600
    assert min(map(len, parts)) > 150


def test_the_shard_of_a_photo_does_not_depend_on_where_the_folder_is(
    tiny_bundle: Path, many_photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "mounted").symlink_to(many_photos)
    parts = []
    for folder in (many_photos, tmp_path / "mounted"):
        out = tmp_path / f"{folder.name}.jsonl"
        predict(tiny_bundle, folder, "--out", out, "--shard", "2/5")
        parts.append([Path(str(row["source"])).relative_to(folder) for row in rows(out)])
    assert parts[0] == parts[1]


def test_a_photo_named_twice_is_classified_once(
    tiny_bundle: Path, many_photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    names = [
        many_photos / "0.png",
        many_photos / "1",
        many_photos / "0.png",
        many_photos / "1" / "1.png",
    ]
    predict(tiny_bundle, *names, many_photos / "2" / ".." / "1", "--out", out)
    sources = [row["source"] for row in rows(out)]
    assert sources[0] == str(many_photos / "0.png")
    assert len(sources) == len(set(sources)) == 1 + len(list((many_photos / "1").iterdir()))


def test_a_photo_that_the_search_skips_is_classified_if_it_is_an_argument(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    for name in ("a.png", ".hidden/b.png", "inner/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo(1, 20, 20).save(folder / name)
    (folder / "upload_7f3a").write_bytes((folder / "a.png").read_bytes())
    (folder / "link.png").symlink_to(folder / "a.png")
    named = [
        folder / name
        for name in (".hidden/b.png", "upload_7f3a", "link.png", "inner", "inner/c.png")
    ]
    out = tmp_path / "results.jsonl"
    assert predict(tiny_bundle, folder, *named, "--out", out).exit_code == 0
    names = ["a.png", "inner/c.png", "link.png", ".hidden/b.png", "upload_7f3a"]
    assert [row["source"] for row in rows(out)] == [str(folder / name) for name in names]


def test_a_folder_that_may_not_be_read_counts_as_a_failure(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        photo(1, 20, 20).save(tmp_path / name)
    scandir = os.scandir

    def guarded(path: str | Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", guarded)
    out = tmp_path / "results.jsonl"
    done = predict(tiny_bundle, tmp_path / "b", tmp_path / "a", "--out", out)
    assert done.exit_code == 1 and "1 of 2 photos could not be classified" in done.stderr
    assert ["error" in row for row in rows(out)] == [True, False]


def test_a_shard_may_be_empty(tiny_bundle: Path, many_photos: Path, tmp_path: Path) -> None:
    codes = {
        predict(tiny_bundle, many_photos / "0.png", "--shard", f"{i}/2").exit_code for i in (1, 2)
    }
    assert codes == {0}


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5"])
def test_an_impossible_shard_is_a_usage_error(
    tiny_bundle: Path, many_photos: Path, shard: str
) -> None:
    assert predict(tiny_bundle, many_photos, "--shard", shard).exit_code == 2


def test_standard_input_can_not_be_continued(tiny_bundle: Path, tmp_path: Path) -> None:
    result = predict(tiny_bundle, "-", "--out", tmp_path / "results.jsonl")
    assert result.exit_code == 2
    assert "not standard input" in result.stderr


def test_a_progress_bar_with_the_rate_is_drawn_on_a_terminal(
    tiny_bundle: Path, many_photos: Path, tmp_path: Path
) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "edgetl",
        "predict",
        tiny_bundle,
        many_photos,
        "--out",
        tmp_path / "results.csv",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(ours)
    assert b"600/600" in shown
    assert b"/s" in shown


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_the_file_has_the_true_label_of_photos_in_folders_named_as_labels(
    tiny_bundle: Path, tmp_path: Path, suffix: str
) -> None:
    for number, folder in enumerate(("plain", "花/deeper", "no label")):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        photo(number).save(tmp_path / "photos" / folder / f"{number}.png")
    (tmp_path / "photos/plain/broken.png").write_bytes(b"no photo")
    out = tmp_path / f"answers.{suffix}"
    assert predict(tiny_bundle, tmp_path / "photos", "--out", out).exit_code == 1
    if suffix == "jsonl":
        found = rows(out)
    elif suffix == "csv":
        with out.open(newline="", encoding="utf-8") as table:
            found = list(csv.DictReader(table))
    else:
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(out).to_pylist()
    truths = {Path(row["source"]).name: row.get("truth") or None for row in found}
    assert truths == {"0.png": "plain", "1.png": "花", "2.png": None, "broken.png": "plain"}
