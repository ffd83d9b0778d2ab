"""Odd uses end in a sentence and an exit code, and cost nobody a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgetl import CheckpointError, ExportError
from edgetl.cli.main import command as program
from edgetl.cli.run_photos import run_data
from edgetl.training.folder_lock import alone_in


def typed(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line in a shell, where ``edgetl`` is this checkout's."""
    shell = f'edgetl() {{ "{sys.executable}" -m edgetl "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def failed_plainly(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "report.html"])
def test_a_run_never_takes_a_file_that_is_not_its_own(name: str, class_folder: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    done = CliRunner().invoke(program, ["train", str(class_folder), "-o", str(tmp_path), "--weights", "none"])
    assert done.exit_code != 0
    assert name in done.output
    assert (tmp_path / name).read_text() == "mine"


def test_only_one_run_at_a_time_has_the_folder(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(CheckpointError, match="Another process"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):  # free again
        pass


def test_data_with_other_classes_is_not_that_of_the_run(class_folder: Path) -> None:
    settings = {"data": str(class_folder), "val_fraction": 0.2}
    labels = ("blue fish", "green, leaf", "red 花")
    assert run_data(settings, labels, "golden photos", "hint").classes == labels
    with pytest.raises(ExportError, match="other classes"):
        run_data(settings, ("blue fish", "red 花"), "golden photos", "hint")


def test_a_report_replaces_no_photo_and_nothing_in_a_bundle_or_of_a_run(class_folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"mine")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "run").mkdir()
    for name in ("best.safetensors", "metrics.json"):
        (tmp_path / "run" / name).write_text("{}")
    for target in (photo, tmp_path / "manifest.json", tmp_path / "new.json", tmp_path / "run/metrics.json"):
        before = target.read_bytes() if target.exists() else None
        done = CliRunner().invoke(program, ["data", "check", str(class_folder), "--json", str(target)])
        assert done.exit_code == 2
        assert "name another file" in done.output
        assert (target.read_bytes() if target.exists() else None) == before


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("selftest", "--threads", "100000"),
        ("selftest", "--tolerance", "nan"),
        ("selftest", "--tolerance", "-1"),
        ("check", "--max-accuracy-drop", "nan"),
        ("export", "--max-accuracy-drop", "nan"),
    ],
)
def test_impossible_numbers_are_wrong_use(command: str, option: str, value: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(program, [command, str(tmp_path), option, value])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.output


def test_a_full_disk_behind_the_output_is_said(class_folder: Path) -> None:
    failed_plainly(typed(f'edgetl data check "{class_folder}" >/dev/full'), "No space left")


def test_a_closed_output_is_no_success(class_folder: Path) -> None:
    failed_plainly(typed(f'edgetl data check "{class_folder}" >&-'), "Standard output is closed")


def test_an_output_without_the_letters_shows_their_codes(class_folder: Path) -> None:
    done = typed(f'edgetl data check "{class_folder}"', PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\u82b1" in done.stdout
