"""``data check``, ``split`` and ``review`` of photos in shards and stores."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from helpers.pictures import photo
from helpers.shards import members, write_tar, write_tars

from edgetl.cli.main import command as program
from edgetl.data.audit import audit_folder
from edgetl.data.image_folder import scan
from edgetl.data.label_review import LabelReview
from edgetl.data.photo_source import PhotoSource
from edgetl.data.review_log import ReviewLog
from edgetl.data.split import split_folder
from edgetl.data.unknown_folder import unknown_photos
from edgetl.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six photos with a copy in one and a damaged photo in the other."""
    for label, first in (("cat", 0), ("dog", 100)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(6):
            photo(first + number).save(tmp_path / f"photos/{label}/{number}.jpg", quality=95)
    shutil.copy(tmp_path / "photos/cat/3.jpg", tmp_path / "photos/cat/3 again.jpg")
    (tmp_path / "photos/dog/damaged.jpg").write_bytes(
        (tmp_path / "photos/dog/1.jpg").read_bytes()[:400]
    )
    return tmp_path / "photos"


def in_store(folder: Path) -> str:
    memory = fsspec.filesystem("memory")
    if memory.exists("/photos"):  # other tests have theirs in the same store
        memory.rm("/photos", recursive=True)
    for path in folder.rglob("*.jpg"):
        memory.pipe(f"/photos/{path.relative_to(folder)}", path.read_bytes())
    return "memory://photos"


def test_a_store_is_checked_as_its_folder_is(folder):
    of_store, of_folder = audit_folder(in_store(folder)), audit_folder(folder)
    assert of_store.counts == of_folder.counts == {"": {"cat": 7, "dog": 6}}
    assert {*of_store.findings} == {*of_folder.findings}
    assert "exact duplicate" in {finding.kind for finding in of_store.findings}
    assert str(of_store.root) == "memory://photos"


def test_shards_are_checked_as_their_folder_is(folder, tmp_path):
    shards = write_tars(tmp_path / "shards", members(folder), 2)
    of_shards, of_folder = audit_folder(shards), audit_folder(folder)
    assert of_shards.counts == of_folder.counts
    assert sorted(finding.kind for finding in of_shards.findings) == sorted(
        finding.kind for finding in of_folder.findings
    )
    done = CliRunner().invoke(program, ["data", "check", shards])
    assert done.exit_code == 1 and "exact duplicate" in done.output, done.output


def test_shards_are_split_into_a_folder_as_their_folder_is(folder, tmp_path):
    split_folder(folder, tmp_path / "of folder", copy=True)
    for number, place in enumerate(
        (in_store(folder), write_tars(tmp_path / "s", members(folder), 2))
    ):
        split_folder(PhotoSource.at(place), tmp_path / f"{number}")
        expected, found = (
            sorted(
                (path.parent.relative_to(root), path.read_bytes()) for path in root.rglob("*.jpg")
            )
            for root in (tmp_path / "of folder", tmp_path / f"{number}")
        )
        assert found == expected and len(found) == 13


@pytest.mark.parametrize("parts", [("train", "val"), ("train",)])
def test_unknown_photos_of_a_store_are_judged_with_as_of_a_folder(folder, tmp_path, parts):
    (folder / "dog/damaged.jpg").unlink()
    (folder / "cat/3 again.jpg").unlink()
    data = tmp_path / "data"
    for offset, part in enumerate(parts):
        for path in folder.rglob("*.jpg"):
            target = data / part / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            photo(int(path.stem) + 20 * offset + 50 * (path.parent.name == "dog")).save(target)
    (data / "unknown").mkdir()
    for number in (1, 300, 301, 301):
        photo(number).save(data / f"unknown/{number}.jpg")
    shutil.copy(data / "train/cat/1.jpg", data / "unknown/known.jpg")
    found = scan(in_store(data))
    assert found.classes == ("cat", "dog")
    assert len(found.train + found.val) == 12 * len(parts)
    assert [warning for warning in found.warnings if "unknown/ only judges" in warning]
    judged = unknown_photos(found, Path("memory://photos"))
    assert judged is not None
    assert {sample.path.name for sample in judged} == {"300.jpg", "301.jpg"}
    assert audit_folder("memory://photos").counts.keys() == ({*parts} if len(parts) > 1 else {""})
    if len(parts) > 1:
        of_folder = unknown_photos(scan(data), data)
        assert of_folder is not None
        assert {(one.digest, one.label) for one in of_folder} == {
            (one.digest, one.label) for one in judged
        }


def test_labels_in_shards_are_not_reviewed(folder, tmp_path):
    shard = write_tar(tmp_path / "photos.tar", members(folder))
    with ReviewLog(tmp_path / "log.jsonl") as log:
        for place in (shard, in_store(folder), "memory://list.csv"):
            with pytest.raises(DataError, match="nothing is changed in shards and stores"):
                LabelReview(PhotoSource.at(place), ("cat", "dog"), (), log)
