"""The programs in examples/ do what they say, run as a reader runs them."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: str | Path) -> str:
    """What the example ``name`` prints. Fails the test if it fails."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path) -> Path:
    """Eight photos, and a file that is none."""
    folder = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def test_a_folder_is_classified_into_a_table(tiny_bundle, photos, tmp_path):
    table = tmp_path / "answers.csv"
    assert run("classify_folder.py", tiny_bundle, photos, table).startswith(
        "8 photos classified, 1"
    )
    answers = rows(table)
    assert [Path(row["photo"]).name for row in answers] == sorted(p.name for p in photos.iterdir())
    assert all(bool(row["label"]) != bool(row["error"]) for row in answers)


def test_a_stopped_classification_continues_where_it_was(tiny_bundle, photos, tmp_path):
    table = tmp_path / "answers.csv"
    run("classify_folder.py", tiny_bundle, photos, table)
    whole = table.read_bytes()
    lines = whole.splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:4]) + lines[4][:7])  # killed in the middle of the fourth row
    assert run("classify_folder.py", tiny_bundle, photos, table).startswith(
        "5 photos classified, 1"
    )
    assert table.read_bytes() == whole
    assert run("classify_folder.py", tiny_bundle, photos, table).startswith(
        "0 photos classified, 0"
    )
    assert table.read_bytes() == whole


def test_photos_are_sorted_by_class(tiny_bundle, photos, tmp_path):
    target = tmp_path / "sorted"
    printed = run("sort_photos.py", tiny_bundle, photos, target, "--once", "--sure", "0")
    assert printed.count("→") == 9
    assert not list(photos.iterdir())
    assert [path.name for path in (target / "unreadable").iterdir()] == ["broken.jpg"]
    assert sum(path.is_file() for path in target.rglob("*")) == 9
    assert not (target / "unsure").exists()


def test_photos_without_a_sure_answer_are_set_aside(tiny_bundle, photos, tmp_path):
    target = tmp_path / "sorted"
    run("sort_photos.py", tiny_bundle, photos, target, "--once", "--sure", "1.1")
    assert len(list((target / "unsure").iterdir())) == 8


def test_a_photo_of_the_same_name_is_not_overwritten(tiny_bundle, photos, tmp_path):
    target = tmp_path / "sorted"
    again = Path(shutil.copytree(photos, tmp_path / "again"))
    for incoming in (photos, again):
        run("sort_photos.py", tiny_bundle, incoming, target, "--once", "--sure", "1.1")
    assert len(list((target / "unsure").iterdir())) == 16
