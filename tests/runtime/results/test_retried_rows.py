"""A photo that could not be read for a reason that can pass is tried again; others are not."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from helpers.heic import heic
from helpers.pictures import photo

from edgetl import Prediction
from edgetl.errors import ImageError, ResultsError
from edgetl.runtime.images.decode import may_pass, read_image
from edgetl.runtime.results import result_file
from edgetl.runtime.results.file_formats import open_results

LABELS = ("a", "b")
GOOD, OTHER = (
    Prediction(f"{name}.jpg", LABELS, np.float32([0, 1]), np.float32([0.25, 0.75]))
    for name in ("good", "other")
)
DENIED, DAMAGED = ImageError("good.jpg", "permission denied"), ImageError("bad.jpg", "it is empty")


@pytest.fixture(params=[".jsonl", ".csv", ".parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"results{request.param}"


def write(path: Path, *results: Prediction | ImageError, killed: bool = False) -> int:
    """Append ``results`` if they have no row; returns how many rows of errors there are."""
    try:
        with open_results(path, "m1", LABELS) as file:
            for item in results:
                if item.source not in file:
                    file.append(item)
            failed = file.failed
            if killed:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return failed


def read(path: Path) -> list[tuple[str, str | None]]:
    """(source, error) of each row."""
    rows: list[dict[str, Any]]
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    elif path.suffix == ".csv":
        rows = list(csv.DictReader(path.read_text().splitlines()))
    else:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    return [(row["source"], row.get("error") or None) for row in rows]


def test_only_errors_of_the_system_may_pass(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_bytes(b"no photo")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("missing.jpg", "empty.jpg", "text.jpg", "pipe.jpg", "."):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert may_pass(caught.value.reason) == (name == "missing.jpg"), caught.value.reason
    assert may_pass("input/output error") and may_pass("permission denied")


def test_heic_photos_are_tried_again_once_their_decoder_is_installed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for package in ("pi_heif", "pillow_heif"):
            patch.setitem(sys.modules, package, None)
        with pytest.raises(ImageError) as caught:
            read_image(heic(photo(1, 40, 40)))
    missing = ImageError("good.jpg", caught.value.reason, caught.value.hint)
    assert write(path, missing, OTHER) == 1
    assert write(path, GOOD) == 0
    assert sorted(read(path)) == [("good.jpg", None), ("other.jpg", None)]


def test_a_row_takes_the_place_of_one_whose_error_may_pass(path: Path) -> None:
    assert write(path, OTHER, DENIED, DAMAGED) == 2
    with open_results(path, "m1", LABELS) as file:
        assert len(file) == 3
        assert [name in file for name in ("good.jpg", "bad.jpg", "other.jpg")] == [
            False,
            True,
            True,
        ]
    assert read(path) == [
        ("other.jpg", None),
        ("good.jpg", "permission denied"),
        ("bad.jpg", "it is empty"),
    ]  # what is not tried again stays
    assert write(path, GOOD, DAMAGED, OTHER) == 1
    assert read(path) == [("other.jpg", None), ("bad.jpg", "it is empty"), ("good.jpg", None)]
    assert write(path, GOOD) == 1
    assert len(read(path)) == 3
    assert list(path.parent.iterdir()) == [path]


def test_it_can_fail_again_and_again(path: Path) -> None:
    for error in ("permission denied", "input/output error", "permission denied"):
        assert write(path, OTHER, ImageError("good.jpg", error), DAMAGED) == 2
        assert sorted(read(path))[1:] == [("good.jpg", error), ("other.jpg", None)]
    assert write(path, GOOD) == 1
    assert sorted(read(path))[1:] == [("good.jpg", None), ("other.jpg", None)]


@pytest.mark.parametrize("first_killed", [True, False])
@pytest.mark.parametrize("again", [GOOD, DENIED])
def test_a_run_that_is_killed_after_it_tried_again_loses_and_doubles_nothing(
    path: Path, again: Prediction | ImageError, first_killed: bool
) -> None:
    write(path, OTHER, DENIED, DAMAGED, killed=first_killed)
    assert write(path, again, killed=True) == 1 + (again is DENIED)
    with open_results(path, "m1", LABELS) as file:
        assert (len(file), file.failed) == (3, 1 + (again is DENIED))
        assert ("good.jpg" in file) == (again is GOOD)
    error = "permission denied" if again is DENIED else None
    assert sorted(read(path)) == [
        ("bad.jpg", "it is empty"),
        ("good.jpg", error),
        ("other.jpg", None),
    ]


def test_a_parquet_run_killed_after_replacing_its_table_tries_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, waiting = tmp_path / "results.parquet", tmp_path / "results.parquet.partial"
    write(path, OTHER, DENIED, DAMAGED)
    write(path, GOOD, killed=True)
    before = waiting.read_bytes()
    write(path)
    waiting.write_bytes(before)  # as if it had not been removed
    assert write(path, GOOD) == 1
    assert sorted(source for source, _ in read(path)) == ["bad.jpg", "good.jpg", "other.jpg"]


def test_a_full_disk_leaves_the_rows_and_no_temporary_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, OTHER, DENIED, DAMAGED)
    before = sorted(entry.name for entry in path.parent.iterdir())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        write(path, GOOD)
    left = sorted(entry.name for entry in path.parent.iterdir())
    assert [name for name in left if not name.endswith(".partial")] == before
    assert write(path, GOOD) == 1
    assert len(read(path)) == 3


def test_large_files_are_copied_in_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_file, "_BLOCK", 7)
    test_a_row_takes_the_place_of_one_whose_error_may_pass(path)


@pytest.mark.parametrize("is_replaced", [True, False])  # or removed, as .parquet.partial is
def test_a_file_that_another_process_has_just_completed_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    path = tmp_path / "results.jsonl"
    write(path, OTHER)

    def completed_meanwhile(handle: int) -> bool:
        path.rename(tmp_path / "old")
        if is_replaced:
            path.write_bytes((tmp_path / "old").read_bytes())
        return True

    monkeypatch.setattr(result_file, "try_lock", completed_meanwhile)
    with pytest.raises(ResultsError, match="another process"):
        open_results(path, "m1", LABELS)
