"""Runs on lists of photos: the same bits as on folders, resumed, exported, refused with a cure."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.training_runs import (
    Notebook,
    equal,
    features_of,
    signal_in_step,
    small,
    train,
    weights_of,
)

from edgetl import train as public_train
from edgetl.data.image_folder import scan
from edgetl.data.photo_source import PhotoSource
from edgetl.errors import DataError, TrainingError
from edgetl.exporting.photo_selection import run_data
from edgetl.training.engine.resumed_run import resume
from edgetl.training.models import checkpoint


def write_list(file: Path, photos: list[Path], header=("path", "label", "split")) -> Path:
    """A CSV file with one row for each photo, labelled by its folder, in reverse order."""
    with file.open("w", encoding="utf-8", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(header)
        for path in sorted(photos, reverse=True):
            part = path.parent.parent.name
            rows.writerow([path.relative_to(file.parent), path.parent.name, part][: len(header)])
    return file


@pytest.fixture
def listed(two_parts: Path) -> Path:
    """A list, in the data folder, of its photos."""
    return write_list(two_parts / "photos.csv", list(two_parts.rglob("*.png")))


def test_a_list_of_the_photos_of_a_folder_is_read_as_the_folder(two_parts, listed):
    assert scan(listed) == scan(two_parts)
    unsplit = write_list(
        two_parts / "train/list.csv", [*two_parts.glob("train/*/*")], ("file", "class")
    )
    assert scan(unsplit) == scan(two_parts / "train")


@pytest.mark.parametrize("changes", [{}, {"strategy": "features"}])
def test_a_list_gives_the_same_bits_as_the_folder(two_parts, listed, tmp_path, changes):
    of = features_of if changes else small
    for data, name in ((two_parts, "folder"), (listed, "list")):
        train(of(data), tmp_path / name)
    assert equal(weights_of(tmp_path / "folder"), weights_of(tmp_path / "list"))
    ours, theirs = (checkpoint.load(tmp_path / name) for name in ("list", "folder"))
    assert ours.card == theirs.card
    assert ours.settings == {**theirs.settings, "data": str(listed)}
    ours, theirs = (
        (tmp_path / name / "validation.csv").read_bytes() for name in ("list", "folder")
    )
    assert ours == theirs
    assert "val in the list" in (tmp_path / "list/report.html").read_text("utf-8")


def test_python_takes_columns_and_a_root(two_parts, tmp_path):
    rows = [
        {"file": photo.relative_to(two_parts).as_posix(), "kind": photo.parent.name}
        for photo in two_parts.glob("train/*/*.png")
    ]
    file = tmp_path / "photos.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    options = {
        "backbone": "timm/small_backbone",
        "weights": "none",
        "feature_cache": "off",
        "device": "cpu",
    }
    result = public_train(
        file,
        tmp_path / "run",
        columns={"path": "file", "label": "kind"},
        root=two_parts,
        **options,
    )
    assert (result.metrics["photos"], result.settings.columns) == (4, "path=file,label=kind")
    card = checkpoint.load(tmp_path / "run").card
    assert card.data["train"] == 12
    settings = result.settings.to_dict()
    assert run_data(settings, card, "golden photos", "hint").val == scan(result.settings.source).val
    with pytest.raises(TrainingError, match="--val-fraction: no effect"):
        public_train(
            write_list(two_parts / "all.csv", [*two_parts.rglob("*.png")]),
            tmp_path / "other",
            val_fraction=0.3,
            **options,
        )
    with pytest.raises(DataError, match=r"--columns: no effect, since .* is no list"):
        public_train(two_parts, tmp_path / "other", columns="path=file", **options)


def test_a_run_on_a_list_goes_on_where_its_photos_are_now(listed, two_parts, tmp_path, monkeypatch):
    train(small(listed, epochs=3), tmp_path / "whole")
    with monkeypatch.context() as patch:
        signal_in_step(patch, 6, signal.SIGTERM)
        assert not train(small(listed, epochs=3), tmp_path / "run").finished
    moved = Path(shutil.move(two_parts, tmp_path / "moved"))
    with pytest.raises(DataError, match="where the photos were, does not exist any more"):
        resume(tmp_path / "run")
    elsewhere = shutil.move(moved / "photos.csv", tmp_path / "photos.csv")
    assert resume(tmp_path / "run", data=Path(elsewhere), root=str(moved)).finished
    assert equal(weights_of(tmp_path / "run"), weights_of(tmp_path / "whole"))


def test_a_label_that_was_changed_is_noticed(listed, tmp_path, monkeypatch):
    signal_in_step(monkeypatch, 3, signal.SIGTERM)
    train(small(listed), tmp_path / "run")
    text = listed.read_text()
    listed.write_text(text.replace("000.png,ash", "000.png,brick", 1))
    assert listed.read_text() != text
    with pytest.raises(TrainingError, match="have changed since the run began"):
        resume(tmp_path / "run")


def test_photos_anywhere_and_any_label_will_do(two_parts, tmp_path):
    labels = {"ash": "a/b: 花", "brick": "../c"}
    rows = [
        {"path": str(photo), "label": labels[photo.parent.name], "set": photo.parent.parent.name}
        for photo in two_parts.rglob("*.png")
    ]
    file = tmp_path / "lists/photos.jsonl"
    file.parent.mkdir()
    (two_parts / "train/ash/000.png").write_bytes(b"not a photo")
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    notebook = Notebook()
    train(features_of(file), tmp_path / "run", listener=notebook)
    assert checkpoint.load(tmp_path / "run").card.labels == ("../c", "a/b: 花")
    assert any(f"{two_parts}/train/ash/000.png: " in note for note in notebook.notes)
    table = (tmp_path / "run/validation.csv").read_text("utf-8")
    assert f"{two_parts}/val/ash/100.png,a/b: 花," in table


def test_a_list_that_marks_train_and_test_is_split_without_the_test(two_parts, listed):
    text = listed.read_text().replace(",val", ",Test")
    listed.write_text(text)
    folders = scan(listed)
    assert (folders.train_counts, folders.val_counts) == ([6, 6], [2, 2])
    assert "test/ is left alone" in folders.warnings[0]
    assert not folders.has_val_folder


def test_copies_stay_on_one_side(two_parts, listed):
    shutil.copy(two_parts / "train/ash/000.png", two_parts / "copy.png")
    listed.write_text(listed.read_text() + "copy.png,ash,val\n")
    assert "1 photo in train/ and val/ at once" in scan(listed).warnings[0]
    folders = scan(PhotoSource(listed, columns="split="))
    for part in (folders.train, folders.val):
        names = {sample.path.name for sample in part if sample.label == 0}
        assert ("copy.png" in names) == ("000.png" in names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("000.png,ash,train", "000.png,,train"), r"line \d+: 'label' is empty"),
        (("000.png,ash,train", "000.png,ash,"), r"line \d+: 'split' is empty"),
        ((",val", ",later"), r"line 2: 'later' is none of train, val and test"),
        ((",train", ",val"), "marks no photo as train"),
        (("ash,val", "brick,val"), "differ; only in train/: ash"),
        (("train/ash/000.png", "train/ash/gone.png"), r"not there:\n  line \d+: .*gone.png"),
        ((",brick", ",ash"), "one label only, ash"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(listed, change, said):
    listed.write_text(listed.read_text().replace(*change))
    with pytest.raises(DataError, match=said) as caught:
        scan(listed)
    assert caught.value.hint


def test_a_file_that_is_no_list_is_no_data(two_parts):
    with pytest.raises(DataError, match=r"100\.png is not a folder") as caught:
        scan(two_parts / "val/ash/100.png")
    assert "or a list of photos" in str(caught.value.hint)
    assert replace(small(two_parts), data="/x").source == PhotoSource(Path("/x"))
