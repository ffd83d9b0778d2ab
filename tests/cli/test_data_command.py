"""``edgetl data``: exit codes, the table, the JSON file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgetl.cli.main import command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["data", *map(str, arguments)])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of eight different photos."""
    for label, name in enumerate(("cat", "dog [b]")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for seed in range(8):
            coarse = np.random.default_rng(100 * label + seed).integers(0, 256, (6, 8, 3), np.uint8)
            Image.fromarray(coarse).resize((64, 48)).save(tmp_path / f"photos/{name}/{seed}.png")
    return tmp_path / "photos"


def test_check_of_a_healthy_folder(photos):
    result = run("check", photos)
    assert result.exit_code == 0, result.output
    assert "dog [b]" in result.output  # no markup
    assert "16 photos to use of 16 files" in result.output
    assert result.output.rstrip().endswith("0 errors, 0 warnings.")


def test_check_exits_1_on_errors_and_writes_every_finding(photos, tmp_path):
    for number in range(9):
        (photos / f"cat/bad\n{number}.jpg").write_bytes(b"")
    result = run("check", photos, "--json", tmp_path / "findings.json")
    assert result.exit_code == 1
    assert "and 4 more" in result.output
    assert "cat/bad\\n0.jpg: it is empty" in result.output
    values = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))
    assert values["errors"] == 9
    assert [finding["paths"] for finding in values["findings"]] == [
        [f"cat/bad\n{number}.jpg"] for number in range(9)
    ]


def test_check_exits_0_on_warnings(photos):
    shutil.copy(photos / "cat/0.png", photos / "cat/again.png")
    result = run("check", photos)
    assert result.exit_code == 0
    assert "exact duplicate" in result.output
    assert "0 errors, 1 warning." in result.output


def test_a_file_name_that_is_not_unicode(photos, tmp_path):
    try:
        (photos / "cat/\udcff.jpg").write_bytes(b"")
    except OSError:
        return  # this file system has no such names
    assert run("check", photos, "--json", tmp_path / "findings.json").exit_code == 1
    (finding,) = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))["findings"]
    assert finding["paths"] == ["cat/\udcff.jpg"]


def test_split_says_what_it_did(photos, tmp_path):
    (photos / "cat/Thumbs.db").write_bytes(b"x")
    shutil.copy(photos / "cat/0.png", photos / "cat/again.png")
    result = run(
        "split",
        photos,
        tmp_path / "data",
        "--val-fraction",
        "0.3",
        "--json",
        tmp_path / "split.json",
    )
    assert result.exit_code == 0, result.output
    assert "17 photos in" in result.output
    assert "1 file left out, 1 group of duplicates kept together." in result.output
    values = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert [finding["paths"] for finding in values["left_out"]] == [["cat/Thumbs.db"]]
    assert sum(values["counts"]["train"].values()) + sum(values["counts"]["val"].values()) == 17
    assert run("check", tmp_path / "data").exit_code == 0


@pytest.mark.parametrize("arguments", [["check", "nowhere"], ["split", "nowhere", "data"]])
def test_a_missing_folder_is_a_clear_error(arguments):
    result = run(*arguments)
    assert result.exit_code == 1
    assert "is not a folder" in result.output
    assert "Traceback" not in result.output


def test_a_json_file_that_can_not_be_written(photos, tmp_path):
    (tmp_path / "file").touch()
    result = run("check", photos, "--json", tmp_path / "file/findings.json")
    assert result.exit_code == 1
    assert "can't be written" in result.output


def test_names_in_the_notes_of_a_split_are_escaped(photos, tmp_path):
    (photos / "cat").rename(photos / "cat\x1b[31m")
    (photos / "cat\x1b[31m/link").symlink_to(photos / "dog [b]")
    result = run("split", photos, tmp_path / "split")
    assert result.exit_code == 0 and "not followed: cat\\x1b[31m/link." in result.output
    assert "\x1b" not in result.output


def test_split_reports_a_photo_in_two_classes(photos, tmp_path):
    other = next(folder for folder in photos.iterdir() if folder.name != "cat")
    shutil.copy(photos / "cat/0.png", other / "copy.png")
    result = run("split", photos, tmp_path / "data", "--json", tmp_path / "split.json")
    assert result.exit_code == 0, result.output
    assert "several classes" in result.output and "and split again" in result.output
    (clash,) = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))["clashes"]
    assert sorted(clash["paths"]) == sorted(["cat/0.png", f"{other.name}/copy.png"])
