"""``data check`` and ``data split`` of lists: as of the folders, and what only a list can have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner
from helpers.pictures import photo

from edgetl.cli.main import command as program
from edgetl.data.audit import audit_folder
from edgetl.data.image_folder import scan
from edgetl.data.photo_source import PhotoSource
from edgetl.data.split import split_folder
from edgetl.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten photos, not split; one photo of each is in the other one, too."""
    for label, first in (("cat", 0), ("dog", 100)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(10):
            picture = photo(first + number)
            picture.save(tmp_path / f"photos/{label}/{number}.jpg", quality=95)
    shutil.copy(tmp_path / "photos/cat/3.jpg", tmp_path / "photos/cat/3 again.jpg")
    photo(105).save(tmp_path / "photos/dog/5 small.jpg", quality=50)
    return tmp_path / "photos"


def as_list(folder: Path, **columns: str) -> Path:
    """A list, beside the photos, of all of them; ``columns`` are more values in each row."""
    rows = [
        {"path": path.relative_to(folder).as_posix(), "label": path.parent.name, **columns}
        for path in sorted(folder.rglob("*.jpg"), reverse=True)
    ]
    file = folder / "photos.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return file


def test_a_list_is_checked_as_its_folder_is(folder):
    of_list, of_folder = audit_folder(as_list(folder)), audit_folder(folder)
    assert of_list.counts == of_folder.counts == {"": {"cat": 11, "dog": 11}}
    found = {finding for finding in of_folder.findings if "photos.jsonl" not in finding.paths}
    assert {finding.kind for finding in found} == {"exact duplicate", "near duplicate"}
    assert {*of_list.findings} == found
    assert of_list.root == folder / "photos.jsonl"


def test_parts_labels_and_missing_files_of_a_list_are_checked(folder):
    rows = [
        {"file": f"{label}/{number}.jpg", "label": label, "part": part}
        for label, number, part in [
            ("cat", 1, "train"),
            ("cat", 2, "train"),
            ("cat", 3, "train"),
            ("cat", "3 again", "Validation"),
            ("dog", 1, "train"),
            ("dog", 99, "val"),
            ("dog", 2, "test"),
        ]
    ]
    rows.append({"file": "photo.dat", "label": "Dog", "part": "train"})
    shutil.copy(folder / "dog/3.jpg", folder / "photo.dat")
    file = folder / "photos.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    result = audit_folder(file)
    assert result.counts == {
        "train": {"Dog": 1, "cat": 3, "dog": 1},
        "val": {"cat": 1, "dog": 0},
        "test": {"dog": 1},
    }
    said = {(finding.kind, finding.message) for finding in result.findings}
    assert said >= {
        ("missing", "no such file; line 6 of the list names it"),
        ("classes", "class 'dog' has no usable photo in val/"),
        ("classes", "class 'Dog' has no folder in val/"),
        ("exact duplicate", "the same bytes 2 times, in train and val"),
        ("odd names", "Classes 'Dog', 'dog' have names that look the same: are they one?"),
        ("wrong suffix", "a JPEG file named .dat"),
    }


def test_a_list_is_split_into_the_parts_of_its_folder(folder, tmp_path):
    of_folder = split_folder(folder, tmp_path / "one", test_fraction=0.1)
    of_list = split_folder(as_list(folder), tmp_path / "two", test_fraction=0.1)
    assert of_list.counts == of_folder.counts
    assert of_list.groups == of_folder.groups == 2
    parts = [
        {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.jpg")}
        for name in ("one", "two")
    ]
    assert parts[0] == parts[1] and len(parts[0]) == 22
    assert scan(tmp_path / "two").val == tuple(
        type(sample)(tmp_path / "two" / sample.path.relative_to(tmp_path / "one"), *rest)
        for sample in scan(tmp_path / "one").val
        for rest in [(sample.label, sample.digest)]
    )


def test_photos_of_one_name_from_several_folders_are_kept_apart(folder, tmp_path):
    rows = [f"{path},{'a' if int(path.stem[0]) % 2 else 'B 花'}" for path in folder.rglob("?.jpg")]
    (tmp_path / "photos.csv").write_text("\n".join(["path,label", *rows]), "utf-8")
    split_folder(tmp_path / "photos.csv", tmp_path / "data", copy=True)
    names = [path.name for path in (tmp_path / "data").rglob("*.jpg")]
    assert len(names) == 20
    assert {"1.jpg", "1-2.jpg"} <= {*names} and "1-3.jpg" not in names


@pytest.mark.parametrize("label", ["a/b", "..", ".hidden", "a\\b", "__MACOSX"])
def test_labels_that_no_folder_can_have_are_refused(folder, tmp_path, label):
    file = as_list(folder)
    file.write_text(file.read_text().replace('"label": "cat"', json.dumps({"label": label})[1:-1]))
    with pytest.raises(DataError, match="No folder for photos can have the name of the label"):
        split_folder(file, tmp_path / "data")


def test_lists_that_can_not_be_split_are_refused(folder, tmp_path):
    file = as_list(folder, split="train")
    file.write_text(file.read_text().replace("train", "val", 1))
    with pytest.raises(DataError, match="says already which photos are for which part") as caught:
        split_folder(file, tmp_path / "data")
    assert "--columns split=" in str(caught.value.hint)
    assert split_folder(PhotoSource(file, columns="split="), tmp_path / "data").counts
    (folder / "cat/1.jpg").unlink()
    with pytest.raises(DataError, match=r"names a file that is not there:\n  line \d+: .*1\.jpg"):
        split_folder(PhotoSource(file, columns="split="), tmp_path / "other")


def test_a_parquet_file_has_rows_and_no_lines(folder):
    rows = [
        {"path": path.relative_to(folder).as_posix(), "label": path.parent.name}
        for path in sorted(folder.rglob("*.jpg"))
    ]
    rows[1] |= {"path": "gone.jpg"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "photos.parquet")
    findings = audit_folder(folder / "photos.parquet").findings
    (missing,) = [finding for finding in findings if finding.kind == "missing"]
    assert missing.message == "no such file; row 2 of the list names it"


def test_both_commands_take_columns_and_a_root(folder, tmp_path):
    rows = [f"{path.relative_to(folder)};{path.parent.name}" for path in folder.rglob("?.jpg")]
    (tmp_path / "photos.csv").write_text("\n".join(["where;what", *rows]))
    options = ["--columns", "path=where,label=what", "--root", str(folder)]
    done = CliRunner().invoke(program, ["data", "check", str(tmp_path / "photos.csv"), *options])
    assert done.exit_code == 0 and "20 photos to use of 20 files" in done.output
    arguments = ["data", "split", str(tmp_path / "photos.csv"), str(tmp_path / "data"), *options]
    done = CliRunner().invoke(program, arguments)
    assert done.exit_code == 0, done.output
    assert "20 photos in" in done.output and "train 80.0%, val 20.0%" in done.output
    done = CliRunner().invoke(program, ["data", "check", str(folder), *options])
    assert done.exit_code == 1 and "--columns: no effect" in done.output
    done = CliRunner().invoke(program, ["data", "check", str(tmp_path / "photos.csv")])
    assert done.exit_code == 1 and "has no column of paths" in done.output
