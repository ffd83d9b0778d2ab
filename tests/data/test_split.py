"""Splitting a folder of class folders: what lands where, and what a failure leaves behind."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from edgetl.data import split as split_module
from edgetl.data.audit import audit_folder
from edgetl.data.image_folder import scan
from edgetl.data.split import split_folder
from edgetl.errors import DataError


def scene(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def fill(folder: Path, seeds: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        scene(seed).save(folder / f"{seed}.jpg", quality=90)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small cats-and-dogs archive, unpacked: 30 + 30 photos and its known bad files."""
    fill(tmp_path / "unpacked/PetImages/Cat", range(30))
    fill(tmp_path / "unpacked/PetImages/Dog", range(100, 130))
    (tmp_path / "unpacked/readme[1].txt").write_text("licence")
    for name, number in (("Cat", 666), ("Dog", 11702)):
        (tmp_path / f"unpacked/PetImages/{name}/{number}.jpg").write_bytes(b"")
        (tmp_path / f"unpacked/PetImages/{name}/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    whole = (tmp_path / "unpacked/PetImages/Cat").glob("*.jpg")
    content = next(path.read_bytes() for path in sorted(whole) if path.stat().st_size > 100)
    (tmp_path / "unpacked/PetImages/Dog/11410.jpg").write_bytes(content[: len(content) // 2])
    gif = io.BytesIO()
    Image.effect_noise((90, 80), 90).convert("RGB").save(gif, "GIF")
    # Not a JPEG, but still a photo.
    (tmp_path / "unpacked/PetImages/Cat/9171.jpg").write_bytes(gif.getvalue())
    return tmp_path / "unpacked"


def placed(destination: Path) -> dict[str, str]:
    """File name → part."""
    return {
        path.name: path.relative_to(destination).parts[0]
        for path in destination.rglob("*")
        if path.is_file()
    }


def test_the_archive_is_split_and_its_bad_files_are_listed(archive, tmp_path):
    done = split_folder(archive, tmp_path / "data")
    assert sorted(finding.paths[0] for finding in done.left_out) == [
        "Cat/666.jpg",
        "Cat/Thumbs.db",
        "Dog/11410.jpg",
        "Dog/11702.jpg",
        "Dog/Thumbs.db",
    ]
    assert len(placed(tmp_path / "data")) == 61
    assert "9171.jpg" in placed(tmp_path / "data")
    assert {side: sum(classes.values()) for side, classes in done.counts.items()}["val"] in range(
        4, 24
    )
    assert sum(sum(classes.values()) for classes in done.counts.values()) == 61
    assert [finding.kind for finding in audit_folder(tmp_path / "data").findings] == [
        "wrong suffix"
    ]
    assert [path.name for path in tmp_path.iterdir()].count("data") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "unpacked"]


def test_the_folder_of_classes_itself_gives_the_same(archive, tmp_path):
    split_folder(archive, tmp_path / "one")
    split_folder(archive / "PetImages", tmp_path / "two")
    assert placed(tmp_path / "one") == placed(tmp_path / "two")


def test_photos_are_hard_links_that_outlive_the_source(archive, tmp_path):
    split_folder(archive, tmp_path / "data")
    (linked,) = (tmp_path / "data").rglob("3.jpg")
    assert linked.stat().st_ino == (archive / "PetImages/Cat/3.jpg").stat().st_ino
    content = linked.read_bytes()
    shutil.rmtree(archive)
    assert linked.read_bytes() == content


def test_copies_are_files_of_their_own(archive, tmp_path):
    split_folder(archive, tmp_path / "data", copy=True)
    (copied,) = (tmp_path / "data").rglob("3.jpg")
    original = archive / "PetImages/Cat/3.jpg"
    assert copied.stat().st_ino != original.stat().st_ino
    assert copied.read_bytes() == original.read_bytes()


def test_another_disk_needs_copies(archive, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(DataError, match="--copy"):
        split_folder(archive, tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unpacked"]


def test_a_source_of_symbolic_links_gives_links_to_the_photos(archive, tmp_path):
    for name in ("Cat", "Dog"):
        (tmp_path / "linked" / name).mkdir(parents=True)
        for photo in (archive / "PetImages" / name).glob("*.jpg"):
            (tmp_path / "linked" / name / photo.name).symlink_to(photo)
    split_folder(tmp_path / "linked", tmp_path / "data")
    (linked,) = (tmp_path / "data").rglob("3.jpg")
    assert not linked.is_symlink()


def test_class_folders_may_be_links(archive, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in ("Cat", "Dog"):
        (tmp_path / "linked" / name).symlink_to(archive / "PetImages" / name)
    assert (
        split_folder(tmp_path / "linked", tmp_path / "data").counts
        == split_folder(archive, tmp_path / "plain").counts
    )


@pytest.mark.parametrize(("fraction", "cats", "dogs"), [(0.2, 4, 5), (0.1, 2, 3), (0.5, 10, 13)])
def test_each_class_is_split_by_the_share_that_was_asked_for(tmp_path, fraction, cats, dogs):
    fill(tmp_path / "photos/cat", range(20))
    fill(tmp_path / "photos/dog", range(50, 76))
    assert split_folder(tmp_path / "photos", tmp_path / "data", val_fraction=fraction).counts[
        "val"
    ] == {
        "cat": cats,
        "dog": dogs,
    }


@pytest.mark.parametrize("test_fraction", [None, 0.3])
def test_the_photos_to_validate_on_are_those_that_training_would_choose(tmp_path, test_fraction):
    """So none is trained on before the split and validated on after it; a test part takes none."""
    fill(tmp_path / "photos/cat", range(60))
    fill(tmp_path / "photos/dog", range(100, 160))
    whole = {sample.digest for sample in scan(tmp_path / "photos").val}
    split_folder(tmp_path / "photos", tmp_path / "data", test_fraction=test_fraction)
    assert {sample.digest for sample in scan(tmp_path / "data").val} == whole


def test_train_val_and_test_in_one_go(tmp_path):
    fill(tmp_path / "photos/cat", range(20))
    fill(tmp_path / "photos/dog", range(50, 53))
    result = split_folder(
        tmp_path / "photos", tmp_path / "data", val_fraction=0.2, test_fraction=0.1
    )
    assert result.counts == {
        "train": {"cat": 14, "dog": 1},
        "val": {"cat": 4, "dog": 1},
        "test": {"cat": 2, "dog": 1},
    }
    assert result.shares == {"train": 15 / 23, "val": 5 / 23, "test": 3 / 23}
    found = {
        part: {name: len(list((tmp_path / "data" / part / name).iterdir())) for name in classes}
        for part, classes in result.counts.items()
    }
    assert found == result.counts
    assert scan(tmp_path / "data").warnings == (
        "test/ is left alone: it is used neither to train nor to validate.",
    )


@pytest.mark.parametrize(
    ("fractions", "said"),
    [
        ({"test_fraction": 0.0}, "The test share is 0.0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"test_fraction": 0.1}, "only 2 distinct photos .* for each of train, val and test"),
    ],
)
def test_shares_that_can_not_be_reached_are_refused(tmp_path, fractions, said):
    fill(tmp_path / "photos/cat", range(2))
    fill(tmp_path / "photos/dog", range(50, 53))
    with pytest.raises(DataError, match=said):
        split_folder(tmp_path / "photos", tmp_path / "data", **fractions)
    assert not (tmp_path / "data").exists()


def test_a_note_names_a_class_whose_copies_keep_it_from_its_share(tmp_path):
    fill(tmp_path / "photos/cat", range(20))
    fill(tmp_path / "photos/dog", range(50, 51))
    for copy in range(14):
        shutil.copy(tmp_path / "photos/dog/50.jpg", tmp_path / f"photos/dog/copy{copy}.jpg")
    fill(tmp_path / "photos/dog", range(60, 61))
    (note,) = split_folder(tmp_path / "photos", tmp_path / "data", val_fraction=0.5).notes
    assert "far from 50% for dog (1 of 16)" in note


def test_the_parts_do_not_depend_on_names(archive, tmp_path):
    split_folder(archive, tmp_path / "before")
    before = placed(tmp_path / "before")
    for photo in list((archive / "PetImages/Cat").glob("[0-9].jpg")):
        photo.rename(photo.with_name(f"renamed {photo.name}"))
    split_folder(archive, tmp_path / "after")
    after = {
        name.removeprefix("renamed "): side for name, side in placed(tmp_path / "after").items()
    }
    assert {name: after[name] for name in before} == before


def test_duplicates_and_near_duplicates_stay_in_one_part(archive, tmp_path):
    cats = archive / "PetImages/Cat"
    for seed in range(30):
        shutil.copy(cats / f"{seed}.jpg", cats / f"{seed} copy.jpg")
        scene(seed, 90, 70).save(cats / f"{seed} larger.png")
        scene(seed, 90, 70).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
            cats / f"{seed} mirrored.png"
        )
    done = split_folder(archive, tmp_path / "data", val_fraction=0.5)
    sides = placed(tmp_path / "data")
    assert done.groups == 30
    for seed in range(30):
        assert sides[f"{seed}.jpg"] == sides[f"{seed} copy.jpg"] == sides[f"{seed} larger.png"]
        assert sides[f"{seed} mirrored.png"] == sides[f"{seed}.jpg"]
    assert {sides[f"{seed}.jpg"] for seed in range(30)} == {"train", "val"}
    assert not [
        finding
        for finding in audit_folder(tmp_path / "data").findings
        if ", in train and val" in finding.message
    ]


def test_photos_of_a_fixed_camera_are_split_one_by_one(tmp_path):
    """All look alike; the classes differ in small details."""
    random = np.random.default_rng(0)
    ground = np.asarray(scene(3, 90, 70)).astype(int)
    for label, spot in (("good", 0), ("scratch", 255)):
        for number in range(30):
            pixels = (ground + random.normal(0, 3, ground.shape)).clip(0, 255).astype(np.uint8)
            pixels[10:13, 20 + number : 24 + number] = spot
            path = tmp_path / "photos" / label / f"{label} {number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        shutil.copy(path, path.with_name(f"{label} copy.png"))
    done = split_folder(tmp_path / "photos", tmp_path / "data", val_fraction=0.25)
    assert all(7 <= number <= 9 for number in done.counts["val"].values())
    assert any("62 photos look much the same" in note for note in done.notes)
    sides = placed(tmp_path / "data")
    assert all(
        sides[f"{label} 29.png"] == sides[f"{label} copy.png"] for label in ("good", "scratch")
    )
    (finding,) = [
        finding for finding in audit_folder(tmp_path / "photos").findings if finding.kind == "alike"
    ]
    assert (finding.level, len(finding.paths)) == ("warning", 62)
    assert "in train and val once training splits them, labelled" in finding.message
    assert "'good' and 'scratch': from a fixed camera" in finding.message


def test_objects_before_a_fixed_camera_may_have_several_orientations(tmp_path):
    """Fifteen photos of each orientation: too few for a static scene by itself."""
    random = np.random.default_rng(0)
    for label, seed in (("good", 1), ("scratched", 2)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(120):
            noisy = np.asarray(scene(seed, 90, 70)) + random.normal(0, 4, (70, 90, 3))
            photo = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            turn = [None, *Image.Transpose][number % 8]
            (photo if turn is None else photo.transpose(turn)).save(
                tmp_path / "photos" / label / f"{number}.png"
            )
    done = split_folder(tmp_path / "photos", tmp_path / "data", val_fraction=0.25)
    assert done.counts["val"] == {"good": 30, "scratched": 30}


def test_a_burst_is_not_a_static_scene(tmp_path):
    for label, first in (("a", 0), ("b", 50)):
        for number in range(19):
            brightness = 1 + 0.01 * max(number - 9, 0)  # nine photos, and ten of one
            photo = ImageEnhance.Brightness(scene(first + min(number, 9), 90, 70)).enhance(
                brightness
            )
            path = tmp_path / "photos" / label / f"{label} {number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.save(path)
    done = split_folder(tmp_path / "photos", tmp_path / "data", val_fraction=0.3)
    assert done.groups == 2 and not done.notes
    assert not [
        finding
        for finding in audit_folder(tmp_path / "data").findings
        if ", in train and val" in finding.message
    ]


def test_copies_with_two_labels_stay_in_one_part(archive, tmp_path):
    for seed in range(30):
        shutil.copy(archive / f"PetImages/Cat/{seed}.jpg", archive / f"PetImages/Dog/cat{seed}.jpg")
    split_folder(archive, tmp_path / "data", val_fraction=0.5)
    sides = placed(tmp_path / "data")
    assert all(sides[f"{seed}.jpg"] == sides[f"cat{seed}.jpg"] for seed in range(30))


def test_equal_names_in_subfolders_are_kept_apart(tmp_path):
    for number, folder in enumerate(("a/monday", "a/tuesday", "b/monday", "b/tuesday")):
        fill(tmp_path / "photos" / folder, range(1))
        scene(number + 50).save(tmp_path / "photos" / folder / "0.jpg")
    split_folder(tmp_path / "photos", tmp_path / "data")
    names = sorted(
        path.relative_to(tmp_path / "data").as_posix()[-13:]
        for path in (tmp_path / "data").rglob("0.jpg")
    )
    assert len(names) == 4


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_each_class_has_photos_in_both_parts_however_few(tmp_path, fraction):
    fill(tmp_path / "photos/a", range(2))
    fill(tmp_path / "photos/b", range(50, 53))
    done = split_folder(tmp_path / "photos", tmp_path / "data", val_fraction=fraction)
    assert all(number >= 1 for classes in done.counts.values() for number in classes.values())
    assert {name for classes in done.counts.values() for name in classes} == {"a", "b"}


@pytest.mark.parametrize("first", range(0, 60, 5))
@pytest.mark.parametrize("fraction", [0.2, 0.8])
def test_with_a_photo_in_two_classes_both_are_in_both_parts(tmp_path, fraction, first):
    fill(tmp_path / "photos/cat", range(first, first + 3))
    fill(tmp_path / "photos/dog", range(first + 2, first + 5))
    done = split_folder(tmp_path / "photos", tmp_path / "data", val_fraction=fraction)
    assert all(done.counts[side][name] for side in ("train", "val") for name in ("cat", "dog"))
    assert len(done.clashes) == 1


def test_classes_that_can_not_be_split_are_refused(tmp_path):
    fill(tmp_path / "photos/a", range(3))
    with pytest.raises(DataError, match="holds one class folder only, a"):
        split_folder(tmp_path / "photos", tmp_path / "data")
    (tmp_path / "photos/b").mkdir()
    with pytest.raises(DataError, match="'b' has no usable photo"):
        split_folder(tmp_path / "photos", tmp_path / "data")
    fill(tmp_path / "photos/b", range(50, 51))
    shutil.copy(tmp_path / "photos/b/50.jpg", tmp_path / "photos/b/51.jpg")
    with pytest.raises(DataError, match="'b' has only one distinct photo"):
        split_folder(tmp_path / "photos", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("few_moves")
def test_classes_that_hold_each_others_photos_are_refused_for_that(tmp_path):
    """Three photos, each in two of three classes: one class is always in one part only."""
    for name, photos in (("a", (1, 2)), ("b", (2, 3)), ("c", (3, 1))):
        fill(tmp_path / "photos" / name, photos)
    with pytest.raises(
        DataError, match=r"can't be in both train and val: its photos are in other classes, too"
    ):
        split_folder(tmp_path / "photos", tmp_path / "data")


def test_a_note_names_links_below_a_class(archive, tmp_path):
    fill(tmp_path / "more", range(300, 303))
    (archive / "PetImages/Cat/more").symlink_to(tmp_path / "more")
    assert split_folder(archive, tmp_path / "data").notes == (
        "Links to folders below a class are not followed: Cat/more.",
    )


def test_photos_outside_the_classes_are_left_out(archive, tmp_path):
    scene(900).save(archive / "PetImages/loose.png")
    done = split_folder(archive, tmp_path / "data")
    assert ("loose.png",) in [finding.paths for finding in done.left_out]
    assert "loose.png" not in placed(tmp_path / "data")


def test_destinations_that_are_refused(archive, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        split_folder(archive, tmp_path / "full")
    with pytest.raises(DataError, match="is not a folder"):
        split_folder(archive, tmp_path / "full/notes.txt")
    with pytest.raises(DataError, match="lies inside"):
        split_folder(archive, archive / "PetImages/data")
    assert (tmp_path / "full/notes.txt").read_text() == "mine"


def test_sources_and_shares_that_are_refused(archive, tmp_path):
    split_folder(archive, tmp_path / "data")
    with pytest.raises(DataError, match="split already"):
        split_folder(tmp_path / "data", tmp_path / "again")
    with pytest.raises(DataError, match="not a folder"):
        split_folder(tmp_path / "nowhere", tmp_path / "again")
    for fraction in (0, 1, -0.5, float("nan")):
        with pytest.raises(DataError, match="validation share"):
            split_folder(archive, tmp_path / "again", val_fraction=fraction)


def test_an_empty_destination_is_filled(archive, tmp_path):
    (tmp_path / "data").mkdir()
    split_folder(archive, tmp_path / "data")
    assert (tmp_path / "data/train/Cat").is_dir()


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("fate", ["changed", "gone"])
def test_a_photo_that_changed_meanwhile_is_refused(archive, tmp_path, monkeypatch, copy, fate):
    """Its part was chosen by its old content, and the error names it, not the destination."""
    photo = archive / "PetImages/Dog/103.jpg"
    real = split_module.validation_digests

    def meanwhile(*arguments: object) -> object:
        photo.unlink()
        if fate == "changed":
            photo.write_bytes(b"garbage")
        return real(*arguments)

    monkeypatch.setattr(split_module, "validation_digests", meanwhile)
    with pytest.raises(
        DataError, match=rf"103\.jpg {'changed' if fate == 'changed' else 'was there a moment ago'}"
    ) as caught:
        split_folder(archive, tmp_path / "data", copy=copy)
    assert "try again" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unpacked"]


def test_a_failure_half_way_leaves_nothing(archive, tmp_path, monkeypatch):
    real, calls = os.link, []

    def fail_late(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 20:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(os, "link", fail_late)
    with pytest.raises(KeyboardInterrupt):
        split_folder(archive, tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unpacked"]


def test_a_killed_split_leaves_no_incomplete_destination(archive, tmp_path):
    program = (
        "import os, sys, time\n"
        "from edgetl.data.split import split_folder\n"
        "real = os.link\n"
        "def slow(*a): real(*a); time.sleep(0.2)\n"
        "os.link = slow\n"
        "split_folder(sys.argv[1], sys.argv[2])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(archive), str(tmp_path / "data")]
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".data.unfinished-*/*/*/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob(".data.unfinished-*/*/*/*.jpg"))  # it was at work
    assert not (tmp_path / "data").exists()
    split_folder(archive, tmp_path / "data")
    assert len(placed(tmp_path / "data")) == 61
    assert not list(tmp_path.glob(".data*"))  # the next call removed what the killed one left


def test_of_two_splits_at_once_the_second_to_end_fails_and_the_first_stays_whole(
    archive, tmp_path, monkeypatch
):
    def meanwhile(*arguments: object) -> None:
        monkeypatch.setattr(os, "link", real)
        split_folder(archive, tmp_path / "data")
        real(*arguments)

    real = os.link
    monkeypatch.setattr(os, "link", meanwhile)
    with pytest.raises(DataError, match="can't be written: Directory not empty"):
        split_folder(archive, tmp_path / "data")
    assert len(placed(tmp_path / "data")) == 61
    assert not list(tmp_path.glob(".data*"))


def test_an_existing_empty_folder_is_filled_not_replaced(archive, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir(mode=0o775)
    before = (tmp_path / "data").stat()
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            split_folder(archive, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    split_folder(archive, tmp_path / "data")
    after = (tmp_path / "data").stat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["train", "val"]
    assert len(placed(tmp_path / "data")) == 61


def test_only_what_killed_runs_left_is_removed(archive, tmp_path):
    mine = [
        tmp_path / "data/.unfinished-holiday/x",
        tmp_path / ".data.unfinished-my_notes",
        tmp_path / ".data.unfinished-x",
    ]
    for path in mine:
        path.mkdir(parents=True)
    left = tmp_path / "data/.unfinished-a1b2c3d4"
    left.mkdir()
    with pytest.raises(DataError, match="not empty"):
        split_folder(archive, tmp_path / "data")
    assert left.exists() and all(path.exists() for path in mine)
    (mine[0] / "..").resolve().rename(tmp_path / "holiday")
    split_folder(archive, tmp_path / "data")
    assert not left.exists() and mine[2].exists()


def test_the_setgid_bit_is_inherited(archive, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2775)
    split_folder(archive, tmp_path / "shared/data")
    for folder in (tmp_path / "shared/data", *(tmp_path / "shared/data").rglob("*/")):
        assert folder.stat().st_mode & 0o2000


def test_a_file_system_without_permissions_is_enough(archive, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    split_folder(archive, tmp_path / "data", copy=True)
    assert len(placed(tmp_path / "data")) == 61


def test_a_filled_folder_has_both_parts_or_none(archive, tmp_path, monkeypatch):
    def fail(path: Path, target: Path) -> Path:
        if target == tmp_path / "data/train":
            raise OSError(5, "Input/output error")
        return plain(path, target)

    (tmp_path / "data").mkdir()
    plain = Path.rename
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(DataError, match="Input/output error"):
        split_folder(archive, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_what_macos_adds_is_ignored(tmp_path):
    for name, numbers in (
        ("photos/a", range(4)),
        ("photos/b", range(4, 8)),
        ("photos/__MACOSX/a", range(8, 10)),
    ):
        fill(tmp_path / name, numbers)
    done = split_folder(tmp_path / "photos", tmp_path / "data")
    assert sum(sum(counts.values()) for counts in done.counts.values()) == 8
    found = audit_folder(tmp_path / "photos")
    assert found.counts == {"": {"a": 4, "b": 4}} and not [
        finding for finding in found.findings if "__MACOSX" in str(finding)
    ]


def test_a_class_name_that_is_not_unicode_is_refused_before_anything_is_written(tmp_path):
    fill(tmp_path / "photos/a", range(3))
    fill(tmp_path / "photos/\udcff", range(3, 6))
    with pytest.raises(DataError, match="not UTF-8"):
        split_folder(tmp_path / "photos", tmp_path / "data")
    assert not (tmp_path / "data").exists()
