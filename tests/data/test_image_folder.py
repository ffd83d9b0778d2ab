"""Reading data folders: layouts, the split, and errors for folders that can't be trained on."""

from __future__ import annotations

import errno
import hashlib
import operator
import os
import shutil
from pathlib import Path

import pytest

from edgetl.data import image_folder
from edgetl.data.audit import audit_folder
from edgetl.data.group_split import validation_digests
from edgetl.data.image_folder import find_unreadable, scan
from edgetl.data.split import split_folder
from edgetl.errors import DataError


def test_reads_train_and_val_with_sorted_classes(two_parts):
    folders = scan(two_parts)
    assert folders.classes == ("ash", "brick")
    assert (folders.train_counts, folders.val_counts) == ([8, 8], [5, 4])
    assert [sample.label for sample in folders.val] == [0] * 5 + [1] * 4
    assert folders.train[0].path == two_parts / "train/ash/000.png"
    assert folders.warnings == ()


def test_a_folder_that_is_refused_is_not_hashed_first(two_parts, monkeypatch):
    shutil.rmtree(two_parts / "val/brick")
    (two_parts / "val/brick").mkdir()
    monkeypatch.setattr(image_folder, "content_digest", lambda _: pytest.fail("hashed a photo"))
    with pytest.raises(DataError, match=r"no photo in .*val"):
        scan(two_parts)


def test_subfolders_of_a_class_belong_to_it(tmp_path, write_photos):
    write_photos(tmp_path / "train", {"ash": 2, "brick": 2})
    write_photos(tmp_path / "train/ash", {"monday": 3})
    write_photos(tmp_path / "val", {"ash": 1, "brick": 1}, first=50)
    assert scan(tmp_path).train_counts == [5, 2]


@pytest.mark.parametrize("part", ["", "val"])  # with parts of its own, and without
def test_the_fingerprint_is_that_of_earlier_versions(two_parts, part):
    """Otherwise, no interrupted run could be resumed by another version."""
    folders = scan(two_parts / part)
    for left in (folders, folders.without({folders.train[0].path: "cut short"})):
        lines = sorted(
            str(sample.path.relative_to(two_parts / part)).encode() + b"\0" + sample.digest.encode()
            for sample in left.train + left.val
        )
        assert left.fingerprint == hashlib.sha256(b"\n".join(lines)).hexdigest()


@pytest.fixture
def one_folder(tmp_path: Path, write_photos) -> Path:
    return write_photos(tmp_path / "photos", {"ash": 60, "brick": 60})


def names(samples):
    return {sample.path.name + str(sample.label) for sample in samples}


def test_each_class_is_split_by_the_share_asked_for(one_folder):
    folders = scan(one_folder, val_fraction=0.25)
    assert (folders.train_counts, folders.val_counts) == ([45, 45], [15, 15])
    assert not names(folders.train) & names(folders.val)
    assert (folders.val_fraction, folders.val_share) == (0.25, 0.25)


def test_each_photo_that_is_added_moves_one_other_at_most(one_folder, write_photos):
    before = scan(one_folder)
    for number in range(200, 210):
        write_photos(one_folder, {"ash": 1}, first=number)
        after = scan(one_folder)
        assert len(names(before.train) & names(after.val)) <= 1
        assert len(names(before.val) & names(after.train)) <= 1
        assert after.val_counts[1] == before.val_counts[1]
        before = after


def test_a_hold_out_does_not_starve_the_next_split(one_folder, tmp_path):
    split_folder(one_folder, tmp_path / "held")
    folders = scan(tmp_path / "held/train")
    assert (folders.train_counts, folders.val_counts) == ([38, 38], [10, 10])


@pytest.mark.parametrize("kept", [operator.lt, operator.ge])
def test_photos_that_were_chosen_by_their_hash_are_split_like_others(one_folder, kept):
    for sample in scan(one_folder).train + scan(one_folder).val:
        if not kept(int(sample.digest[:2], 16), 0x80):
            sample.path.unlink()
    folders = scan(one_folder)
    for train, val in zip(folders.train_counts, folders.val_counts, strict=True):
        assert val == round(0.2 * (train + val)) > 2


def test_a_warning_names_a_class_that_is_far_from_its_share(one_folder):
    folders = scan(one_folder)
    lost = [sample.path for sample in folders.val if sample.label == 0][:10]
    left = folders.without(dict.fromkeys(lost, "cut short"))
    assert left.warnings[-1] == (
        "The share of photos to validate on is far from 20% for ash (2 of 50): "
        "some are copies that must stay together, or can't be read."
    )


def test_a_larger_share_only_moves_photos_into_validation(one_folder):
    assert names(scan(one_folder, val_fraction=0.1).val) <= names(
        scan(one_folder, val_fraction=0.5).val
    )


def test_renamed_photos_and_copies_stay_in_their_part(one_folder):
    before = scan(one_folder)
    judged = before.val[0].path
    judged.rename(judged.with_name("zzz.png"))
    shutil.copy(judged.with_name("zzz.png"), judged.with_name("aaa.png"))
    val_names = {sample.path.name for sample in scan(one_folder).val}
    assert {"zzz.png", "aaa.png"} <= val_names


def test_the_fingerprint_follows_content_and_place_but_not_the_folders_location(
    one_folder, tmp_path
):
    before = scan(one_folder).fingerprint
    copied = shutil.copytree(one_folder, tmp_path / "elsewhere")
    assert scan(copied).fingerprint == before
    photo = scan(one_folder).train[0].path
    photo.write_bytes(photo.read_bytes() + b"x")
    assert scan(one_folder).fingerprint != before


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, "no class folder"),
        ({"ash": 3}, "one class folder only, ash"),
        ({"ash": 3, "empty": 0, "void": 0}, "Classes 'empty', 'void': no photo"),
    ],
)
def test_folders_without_enough_classes_are_refused(tmp_path, write_photos, counts, said):
    for name in counts:
        (tmp_path / name).mkdir()
    write_photos(tmp_path, counts)
    with pytest.raises(DataError, match=said):
        scan(tmp_path)


def test_classes_that_differ_between_the_parts_are_named(two_parts, write_photos):
    write_photos(two_parts / "val", {"clover": 2})
    write_photos(two_parts / "train", {"dusk": 2})
    with pytest.raises(DataError, match=r"only in train/: dusk; only in val/: clover"):
        scan(two_parts)


def test_a_class_that_is_missing_in_one_part_is_named(tmp_path, write_photos):
    write_photos(tmp_path / "train", {"cat": 1, "dog": 1})
    write_photos(tmp_path / "val", {"cat": 1}, first=1)
    with pytest.raises(DataError, match="differ; only in train/: dog"):
        scan(tmp_path)


def test_class_names_that_only_look_the_same_are_shown_with_escapes(tmp_path, write_photos):
    write_photos(tmp_path / "train", {"caf\u00e9": 1, "dog": 1})
    write_photos(tmp_path / "val", {"cafe\u0301": 1, "dog": 1}, first=1)
    with pytest.raises(
        DataError, match=r"only in train/: 'caf\\xe9'; only in val/: 'cafe\\u0301'\."
    ) as caught:
        scan(tmp_path)
    assert "of the same characters" in caught.value.hint


def test_one_part_without_the_other_is_refused(two_parts):
    (two_parts / "val").rename(two_parts / "validation")
    with pytest.raises(DataError, match=r"Rename validation/ to val/"):
        scan(two_parts)
    shutil.rmtree(two_parts / "validation")
    with pytest.raises(DataError, match=r"give .*train to have it split"):
        scan(two_parts)


def test_a_missing_folder_and_an_impossible_share_are_refused(two_parts, tmp_path):
    with pytest.raises(DataError, match="not a folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(DataError, match="above 0 and below 1"):
        scan(two_parts, val_fraction=1.0)


@pytest.mark.parametrize(("share", "train", "val"), [(0.999999, 1, 2), (0.000001, 2, 1)])
def test_each_class_has_photos_in_both_parts(tmp_path, write_photos, share, train, val):
    write_photos(tmp_path, {"ash": 3, "brick": 3})
    folders = scan(tmp_path, val_fraction=share)
    assert (folders.train_counts, folders.val_counts) == ([train] * 2, [val] * 2)
    assert not folders.warnings


@pytest.mark.usefixtures("few_moves")
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    "classes",
    [
        {"ash": "a", "brick": "ab"},  # the first class has nothing else to train on
        {"ash": "a", "brick": "b"},
        {"ash": "aa", "brick": "abc"},
        {"ash": "a", "brick": "b", "clover": "ab"},
        {"ash": "ab", "brick": "bc", "clover": "ca"},
    ],
)
def test_classes_that_share_photos_keep_training_photos(classes, share):
    photos = [(digest, name) for name, digests in classes.items() for digest in digests]
    validating = validation_digests(photos, share)
    for digests in classes.values():
        assert not validating.issuperset(digests)


def test_a_warning_names_copies_in_both_parts(two_parts):
    shutil.copy(two_parts / "train/ash/000.png", two_parts / "val/ash/copy.png")
    assert "1 photo in train/ and val/ at once" in scan(two_parts).warnings[0]


def test_unreadable_training_photos_are_listed_and_left_out(two_parts):
    broken = two_parts / "train/ash/000.png"
    broken.write_bytes(broken.read_bytes()[:200])
    folders = scan(two_parts)
    unreadable = find_unreadable(folders.train + folders.val)
    assert list(unreadable) == [broken]
    left = folders.without(unreadable)
    assert left.train_counts == [7, 8]
    assert "train/ash/000.png: " in left.warnings[0]
    assert left.fingerprint != folders.fingerprint


def test_an_unreadable_validation_photo_is_an_error_that_names_it(two_parts):
    folders = scan(two_parts)
    with pytest.raises(
        DataError, match=r"1 photo to validate on can't be read:\n  val/brick/100.png: cut short"
    ):
        folders.without({two_parts / "val/brick/100.png": "cut short"})


def test_without_a_val_folder_unreadable_photos_of_both_parts_are_left_out(tmp_path, write_photos):
    write_photos(tmp_path, {"ash": 12, "brick": 12})
    folders = scan(tmp_path)
    broken = (folders.train[0].path, folders.val[0].path)
    left = folders.without(dict.fromkeys(broken, "cut short"))
    assert {sample.path for sample in folders.train + folders.val} - {
        s.path for s in left.train + left.val
    } == {*broken}
    assert left.warnings[-1].startswith("2 photos can't be read and left out:")
    assert left.fingerprint != folders.fingerprint
    with pytest.raises(DataError, match="no photo that fell into the validation part can be read"):
        folders.without({sample.path: "cut short" for sample in folders.val})


def test_a_warning_names_a_class_without_readable_validation_photos(tmp_path, write_photos):
    write_photos(tmp_path, {"ash": 12, "brick": 12})
    folders = scan(tmp_path)
    assert not folders.warnings
    left = folders.without(
        {sample.path: "cut short" for sample in folders.val if sample.label == 1}
    )
    assert any(
        "No photo of brick fell into the validation part" in sentence for sentence in left.warnings
    )


@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>"])
def test_broken_downloads_are_not_duplicates(two_parts, content):
    for name in ("train/ash", "train/brick", "val/ash"):
        (two_parts / name / "broken.jpg").write_bytes(content)
    assert not scan(two_parts).warnings


def test_a_class_left_without_readable_photos_is_an_error(two_parts):
    folders = scan(two_parts)
    with pytest.raises(DataError, match="'ash': no training photo that can be read"):
        folders.without({sample.path: "empty" for sample in folders.train if sample.label == 0})


@pytest.mark.parametrize(
    "names", [("Train", "Val"), ("training", "validation"), ("TRAIN", "Test", "valid")]
)
def test_parts_with_other_names_are_not_classes(tmp_path, write_photos, names):
    for name in names:
        write_photos(tmp_path / name, {"ash": 3, "brick": 3})
    with pytest.raises(DataError, match="parts of data, not classes") as caught:
        scan(tmp_path)
    assert caught.value.hint == "Rename them to train/ and val/."


@pytest.mark.parametrize("inner", [("train", "val"), ("Train", "test")])
def test_a_data_folder_is_not_a_class(tmp_path, write_photos, inner):
    for name in inner:
        write_photos(tmp_path / "pets" / name, {"ash": 3, "brick": 3})
    write_photos(tmp_path, {"other": 4})
    with pytest.raises(DataError, match="it is a data folder, not a class") as caught:
        scan(tmp_path)
    assert f"Name {tmp_path / 'pets'}" in caught.value.hint


def test_the_hint_for_a_parent_folder_names_the_data_folder(tmp_path, write_photos):
    write_photos(tmp_path / "archive", {"ash": 3, "brick": 3})
    with pytest.raises(DataError, match="one class folder only, archive") as caught:
        scan(tmp_path)
    assert caught.value.hint == f"Did you mean {tmp_path / 'archive'}?"
    write_photos(tmp_path, {"stray": 20})
    (warning,) = [
        text for text in scan(tmp_path, val_fraction=0.4).warnings if "further below" in text
    ]
    assert warning == (
        "All photos of archive lie in folders further below (ash, brick): "
        "each counts as one of its class."
    )
    write_photos(tmp_path, {"archive": 20})
    assert not [
        text for text in scan(tmp_path, val_fraction=0.4).warnings if "further below" in text
    ]


def test_a_warning_names_links_below_a_class(two_parts, tmp_path):
    (two_parts / "train" / "ash" / "more").symlink_to(two_parts / "val" / "ash")
    assert "Links to folders below a class are not followed: ash/more." in scan(two_parts).warnings
    assert any("ash/more" in finding.message for finding in audit_folder(two_parts).findings)


def test_what_macos_adds_to_archives_is_not_a_class(tmp_path, write_photos):
    write_photos(tmp_path / "zip/photos", {"ash": 20, "brick": 20})
    (tmp_path / "zip/__MACOSX/photos/ash").mkdir(parents=True)
    (tmp_path / "zip/__MACOSX/photos/ash/._000.png").write_bytes(b"\0\5\x16\7")
    with pytest.raises(DataError) as caught:
        scan(tmp_path / "zip")
    assert caught.value.hint == f"Did you mean {tmp_path / 'zip/photos'}?"
    (tmp_path / "zip/photos/__MACOSX").mkdir()
    assert scan(tmp_path / "zip/photos", val_fraction=0.4).classes == ("ash", "brick")


def test_a_warning_names_classes_whose_names_look_the_same(tmp_path, write_photos):
    write_photos(tmp_path, {"cafe\u0301": 20, "caf\u00e9": 20, "Dog": 20, "dog": 20, "cat": 20})
    warnings = scan(tmp_path, val_fraction=0.4).warnings
    assert sorted(text for text in warnings if "look the same" in text) == [
        "Classes 'Dog', 'dog' have names that look the same: are they one?",
        r"Classes 'cafe\u0301', 'caf\xe9' have names that look the same: are they one?",
    ]
    assert (
        sum("look the same" in finding.message for finding in audit_folder(tmp_path).findings) == 2
    )


def test_train_and_val_are_not_class_names(tmp_path, write_photos):
    write_photos(tmp_path, {"train": 3, "plane": 3})
    with pytest.raises(DataError, match="train holds no class folder") as caught:
        scan(tmp_path)
    assert "If train is a class, rename it" in str(caught.value.hint)


@pytest.mark.parametrize("where", [".", "ash"])
def test_a_folder_that_can_not_be_read_is_named(tmp_path, write_photos, monkeypatch, where):
    write_photos(tmp_path, {"ash": 3, "brick": 3})
    scandir = os.scandir

    def refuse(folder):
        if Path(folder) == tmp_path / where:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match="Permission denied") as caught:
        scan(tmp_path)
    assert str(tmp_path / where) in caught.value.message


def test_a_folder_is_the_same_one_after_it_was_moved(two_parts, tmp_path):
    (two_parts / "train/ash/gone.jpg").symlink_to("nowhere.jpg")
    (two_parts / "test").mkdir()
    before = scan(two_parts)
    after = scan(two_parts.rename(tmp_path / "moved"))
    assert (after.fingerprint, after.warnings) == (before.fingerprint, before.warnings)


def test_a_photo_in_three_classes_is_one_photo(tmp_path, write_photos):
    write_photos(tmp_path, {"ash": 9, "brick": 9, "clover": 9})
    photo = next((tmp_path / "ash").iterdir())
    for name in ("brick", "clover"):
        shutil.copy(photo, tmp_path / name / "copy.png")
    write_photos(tmp_path, {"dusk": 9})
    (warning,) = [
        sentence
        for sentence in scan(tmp_path, val_fraction=0.4).warnings
        if "classes at once" in sentence
    ]
    assert warning.startswith("1 photo in several")


def test_a_warning_counts_photos_in_several_classes(two_parts):
    photo = next((two_parts / "train/ash").iterdir())
    assert not [sentence for sentence in scan(two_parts).warnings if "classes at once" in sentence]
    shutil.copy(photo, two_parts / "train/ash/again.png")
    shutil.copy(photo, two_parts / "train/brick/other.png")
    (warning,) = [
        sentence for sentence in scan(two_parts).warnings if "classes at once" in sentence
    ]
    assert (
        warning.startswith("1 photo in several classes at once") and "edgetl data check" in warning
    )


def test_a_name_with_a_line_break_is_shown_in_one_line(two_parts):
    photo = two_parts / "train/ash/one\ntwo.jpg"
    photo.write_bytes(b"")
    left = scan(two_parts).without({photo: "it is empty"})
    assert left.warnings[-1].endswith("\n  train/ash/one\\ntwo.jpg: it is empty")
