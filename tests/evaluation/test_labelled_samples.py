"""Labelled photos for a network whose labels are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.errors import DataError
from edgetl.evaluation.true_labels import labelled_samples


def test_the_labels_are_the_networks_and_not_the_folders_order(tmp_path: Path, write_photos):
    write_photos(tmp_path, {"ash": 2, "brick": 1})
    (tmp_path / "dusk").mkdir()  # a label without photos is no mistake
    found = labelled_samples(tmp_path, ("dusk", "brick", "ash"))
    assert [(sample.path.parent.name, sample.label) for sample in found] == [
        ("ash", 2),
        ("ash", 2),
        ("brick", 1),
    ]


def test_folders_that_are_no_label_are_named(tmp_path: Path, write_photos):
    write_photos(tmp_path, {"ash": 1, "brick": 1, "clover": 1})
    with pytest.raises(DataError, match="labels than the network's: brick, clover") as caught:
        labelled_samples(tmp_path, ("ash", "oak"))
    assert "Its labels: ash, oak" in str(caught.value.hint)


def test_a_list_says_the_labels_itself(tmp_path: Path, write_photos):
    write_photos(tmp_path / "photos", {"ash": 2})
    rows = ["path,label", "photos/ash/000.png,oak", "photos/ash/001.png,elm"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    found = labelled_samples(tmp_path / "list.csv", ("elm", "oak"))
    assert [sample.label for sample in found] == [1, 0]
    with pytest.raises(DataError, match="labels than the network's: oak"):
        labelled_samples(tmp_path / "list.csv", ("elm", "ash"))


def test_a_folder_without_photos_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="There is no photo"):
        labelled_samples(tmp_path, ("ash",))


def test_a_list_gives_labels_and_one_without_labels_leaves_them_to_the_folders(
    tmp_path: Path, write_photos
):
    write_photos(tmp_path, {"ash": 2, "brick": 1})
    (tmp_path / "photos.csv").write_text("path,label\nash/001.png,oak\nbrick/000.png,ash\n")
    found = labelled_samples(tmp_path / "photos.csv", ("ash", "brick", "oak"))
    assert [(sample.path.parent.name, sample.label) for sample in found] == [
        ("ash", 2),
        ("brick", 0),
    ]
    (tmp_path / "photos.txt").write_text("brick/000.png\nash/000.png")
    found = labelled_samples(tmp_path / "photos.txt", ("ash", "brick"))
    assert [sample.label for sample in found] == [1, 0]
    assert [sample.label for sample in labelled_samples(found[0].path, ("ash", "brick"))] == [1]
