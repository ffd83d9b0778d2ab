"""The audit of a data folder, on folders with one fault each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.data import audit
from edgetl.data.audit import DataIssue, audit_folder
from edgetl.data.image_folder import scan
from edgetl.data.layout import class_names, name_error
from edgetl.errors import DataError
from edgetl.runtime.images.discovery import find_images


def scene(seed: int, width: int = 80, height: int = 60) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    """Six photos in train and four in val, two classes, all different."""
    seeds = iter(range(100))
    for part, number in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            for _ in range(number):
                seed = next(seeds)
                save(tmp_path / "data" / part / name / f"{seed}.jpg", scene(seed), quality=90)
    return tmp_path / "data"


def found(root: Path, kind: str) -> list[DataIssue]:
    return [finding for finding in audit_folder(root).findings if finding.kind == kind]


def test_a_name_that_only_the_locale_does_not_allow_is_not_called_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As Python reads it where file names are ASCII.
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode("ascii", "surrogateescape"))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    error = name_error("花".encode().decode("ascii", "surrogateescape"))
    assert error is not None and "'花'" in error.message and "ascii" in error.message
    assert error.hint is not None and "PYTHONUTF8=1" in error.hint
    error = name_error("\udcff")
    assert error is not None and "is not UTF-8" in error.message


def test_a_healthy_folder_has_no_findings(healthy):
    result = audit_folder(healthy)
    assert result.findings == ()
    assert result.errors == 0
    assert result.counts == {"train": {"cat": 3, "dog": 3}, "val": {"cat": 2, "dog": 2}}
    assert (result.files, result.median_size, result.rotated) == (10, (80, 60), 0.0)


def test_a_folder_not_yet_split_is_read_as_one_part(healthy):
    assert audit_folder(healthy / "train").counts == {"": {"cat": 3, "dog": 3}}


def test_nothing_is_changed(healthy):
    (healthy / "train/cat/broken.jpg").write_bytes(b"")

    def state() -> list[tuple[str, int, str]]:
        files = sorted(path for path in healthy.rglob("*") if path.is_file())
        return [
            (str(p), p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest())
            for p in files
        ]

    before = state()
    audit_folder(healthy)
    assert state() == before


@pytest.mark.parametrize("which", ["val", "train/cat"])
def test_parts_and_classes_may_be_links_as_in_training(healthy, tmp_path, which):
    before = audit_folder(healthy)
    (healthy / which).rename(tmp_path / "elsewhere")
    (healthy / which).symlink_to(tmp_path / "elsewhere")
    after = audit_folder(healthy)
    assert (after.files, after.counts, after.findings) == (
        before.files,
        before.counts,
        before.findings,
    )
    assert len(scan(healthy).train) == sum(after.counts["train"].values())
    (healthy / "train/cat/round").symlink_to(healthy)  # below a class none is followed, by neither
    assert audit_folder(healthy).files == before.files


def test_an_empty_file(healthy):
    (healthy / "train/cat/666.jpg").write_bytes(b"")
    assert found(healthy, "empty") == [
        DataIssue("error", "empty", "it is empty (0 bytes)", ("train/cat/666.jpg",))
    ]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp"])
def test_a_truncated_file_of_any_format_is_an_error(healthy, suffix):
    path = save(healthy / f"val/dog/half.{suffix}", scene(50))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    errors = [finding for finding in audit_folder(healthy).findings if finding.level == "error"]
    assert [finding.paths for finding in errors] == [(f"val/dog/half.{suffix}",)]
    assert errors[0].kind in ("truncated", "unreadable")


def test_a_truncated_jpeg_is_called_truncated(healthy):
    path = healthy / "val/dog/9.jpg"
    path.write_bytes(path.read_bytes()[:900])
    assert [finding.paths for finding in found(healthy, "truncated")] == [("val/dog/9.jpg",)]


def test_text_named_like_a_photo(healthy):
    (healthy / "train/dog/page.jpg").write_text("<html>404</html>")
    (finding,) = found(healthy, "unreadable")
    assert (finding.level, finding.paths) == ("error", ("train/dog/page.jpg",))


def test_a_file_that_may_not_be_read_is_an_error(healthy):
    (healthy / "train/dog/gone.jpg").symlink_to(healthy / "nowhere.jpg")
    (finding,) = found(healthy, "unreadable")
    assert "no such file" in finding.message


def test_wrong_and_unusual_suffixes_and_files_that_are_not_photos(healthy):
    save(healthy / "train/cat/really_png.jpg", scene(60), format="PNG")
    save(healthy / "train/cat/photo.bak", scene(61), format="JPEG")
    (healthy / "train/cat/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0 catalogue")
    assert found(healthy, "wrong suffix") == [
        DataIssue("warning", "wrong suffix", "a PNG file named .jpg", ("train/cat/really_png.jpg",))
    ]
    assert [finding.paths for finding in found(healthy, "unusual suffix")] == [
        ("train/cat/photo.bak",)
    ]
    assert [finding.paths for finding in found(healthy, "not a photo")] == [
        ("train/cat/Thumbs.db",)
    ]
    # Training reads the PNG, but not the others.
    assert audit_folder(healthy).counts["train"]["cat"] == 4


def test_suffixes_of_any_case_and_spelling_are_right(healthy):
    for name, kind in (("a.JPG", "JPEG"), ("b.jpeg", "JPEG"), ("c.TIF", "TIFF"), ("d.mpo", "MPO")):
        save(healthy / "train/cat" / name, scene(70 + ord(name[0])), format=kind)
    assert not found(healthy, "wrong suffix")


def test_hidden_files_are_ignored(healthy):
    (healthy / "train/cat/.DS_Store").write_bytes(b"x")
    (healthy / "train/.cache").mkdir()
    (healthy / "train/.cache/x.jpg").write_bytes(b"x")
    assert audit_folder(healthy).findings == ()


def test_the_same_bytes_in_train_and_val_are_a_leak(healthy):
    shutil.copy(healthy / "train/cat/0.jpg", healthy / "val/cat/other name.jpg")
    (finding,) = found(healthy, "exact duplicate")
    assert finding.level == "error"
    assert finding.message == "the same bytes 2 times, in train and val"
    assert finding.paths == ("train/cat/0.jpg", "val/cat/other name.jpg")


def test_the_same_bytes_with_two_labels_are_an_error(healthy):
    shutil.copy(healthy / "train/cat/0.jpg", healthy / "train/dog/0.jpg")
    (finding,) = found(healthy, "exact duplicate")
    assert finding.level == "error"
    assert finding.message.endswith("labelled 'cat' and 'dog'")


def test_the_same_bytes_within_one_class_are_a_warning(healthy):
    shutil.copy(healthy / "train/cat/0.jpg", healthy / "train/cat/again.jpg")
    (finding,) = found(healthy, "exact duplicate")
    assert finding.level == "warning"
    assert not found(healthy, "near duplicate")


def test_a_near_duplicate_across_parts_is_a_warning_that_names_both(healthy):
    with Image.open(healthy / "train/cat/0.jpg") as original:
        save(healthy / "val/cat/smaller.png", original.resize((64, 48)))
    (finding,) = found(healthy, "near duplicate")
    assert finding.level == "warning"
    assert finding.message == "2 photos that look the same, in train and val"
    assert finding.paths == ("train/cat/0.jpg", "val/cat/smaller.png")


def test_copies_of_a_near_duplicate_are_listed_with_it(healthy):
    with Image.open(healthy / "train/cat/0.jpg") as original:
        save(healthy / "train/cat/smaller.png", original.resize((64, 48)))
    shutil.copy(healthy / "train/cat/smaller.png", healthy / "val/dog/copy.png")
    (finding,) = found(healthy, "near duplicate")
    assert finding.paths == ("train/cat/0.jpg", "train/cat/smaller.png", "val/dog/copy.png")


def test_tiny_and_huge_photos(healthy, monkeypatch):
    monkeypatch.setattr(audit, "HUGE_PIXELS", 100 * 100)
    save(healthy / "train/cat/thumb.png", scene(80, 16, 90))
    save(healthy / "train/cat/poster.png", scene(81, 101, 100))
    assert [(f.paths, f.message) for f in found(healthy, "tiny")] == [
        (("train/cat/thumb.png",), "16×90 pixels")
    ]
    assert [f.paths for f in found(healthy, "huge")] == [("train/cat/poster.png",)]


def test_sizes_are_those_of_the_upright_photo_and_turned_ones_are_counted(tmp_path):
    for number in range(4):
        for name in ("a", "b"):
            exif = Image.Exif()
            exif[0x0112] = 6 if name == "a" else 1
            save(tmp_path / name / f"{number}.jpg", scene(90 + 10 * number + ord(name)), exif=exif)
    result = audit_folder(tmp_path)
    assert result.rotated == 0.5
    assert sorted({result.median_size}) in ([(60, 80)], [(80, 60)])


def test_uneven_classes(tmp_path):
    for number in range(10):
        save(tmp_path / "many" / f"{number}.jpg", scene(number))
    for number in range(2):
        save(tmp_path / "few" / f"{number}.jpg", scene(50 + number))
    (finding,) = found(tmp_path, "uneven classes")
    assert finding.message == "'many' has 10 photos, 'few' only 2"


def test_classes_that_are_missing_empty_or_alone(healthy):
    (healthy / "train/empty").mkdir()
    shutil.rmtree(healthy / "val/dog")
    (healthy / "val/dog").mkdir()
    (healthy / "val/dog/bad.jpg").write_bytes(b"")
    messages = {finding.message for finding in found(healthy, "classes")}
    assert messages == {
        "class 'empty' has no usable photo in train/",
        "class 'empty' has no folder in val/",
        "class 'dog' has no usable photo in val/",
    }
    assert found(healthy / "val" / "cat", "classes")[0].message.count("no class folder") == 1


def test_photos_outside_the_classes(healthy):
    save(healthy / "loose.png", scene(95))
    save(healthy / "train/loose.png", scene(96))
    (healthy / "README.txt").write_text("about")
    assert [finding.paths for finding in found(healthy, "stray photo")] == [
        ("loose.png",),
        ("train/loose.png",),
    ]


def test_photos_in_unknown_are_counted_and_only_warned_of(healthy):
    save(healthy / "unknown/bird/1.png", scene(95))
    (healthy / "unknown/broken.jpg").write_bytes(b"")
    (healthy / "unknown/README.txt").write_text("about")
    result = audit_folder(healthy)
    assert result.unknown == 1 and sum(map(len, result.counts.values())) == 4
    assert [(issue.level, issue.kind, issue.paths) for issue in result.findings] == [
        ("warning", "empty", ("unknown/broken.jpg",))
    ]
    # Where a class has this name, training leaves the folder alone.
    for part in ("train", "val"):
        save(healthy / part / "unknown/1.jpg", scene(96 if part == "val" else 97))
    assert audit_folder(healthy).unknown == 0
    assert [issue.paths for issue in found(healthy, "stray photo")] == [("unknown/bird/1.png",)]


def test_a_folder_that_training_can_not_split_is_an_error(tmp_path):
    for name in ("a", "b"):  # the same photo, which is missing in one of the parts
        for label in (name, f"{name}2"):
            save(tmp_path / label / "0.jpg", scene(ord(name)))
    findings = found(tmp_path, "classes")
    assert [finding.message.split(",")[0] for finding in findings] == [
        "there would be no photo to validate on"
    ]
    with pytest.raises(DataError, match="no photo fell into the validation part"):
        scan(tmp_path)


def test_a_single_photo_is_for_training_and_one_of_two_for_validation(tmp_path):
    for seed in range(40):
        save(
            tmp_path / {0: "lone", 1: "two", 2: "two"}.get(seed, "many") / f"{seed}.jpg",
            scene(seed),
        )
    (finding,) = found(tmp_path, "classes")
    assert finding.level == "warning" and finding.message.startswith(
        "class 'lone' would have no photo to validate on"
    )
    folders = scan(tmp_path)
    assert folders.classes == ("lone", "many", "two")
    assert (folders.train_counts[0], folders.val_counts[0]) == (1, 0)
    assert (folders.train_counts[2], folders.val_counts[2]) == (1, 1)


def test_blank_and_dark_photos_are_warnings(healthy):
    save(healthy / "train/cat/blank.jpg", Image.new("RGB", (80, 60), (200, 10, 10)))
    plate = np.full((600, 800, 3), 128, np.uint8)
    plate[300:303, 100:400] = 0
    save(healthy / "train/cat/cracked plate.png", Image.fromarray(plate))
    save(
        healthy / "train/cat/two colours.png",
        Image.fromarray(np.repeat(np.uint8([[[130, 0, 0], [0, 66, 0]]]), 40, axis=1)),
    )
    twelve_bits = np.asarray(scene(50).convert("L")).astype(np.uint16) << 4
    Image.fromarray(twelve_bits).save(healthy / "val/dog/dark.png")
    Image.fromarray(twelve_bits << 4).save(healthy / "val/dog/bright.png")
    findings = [
        (finding.kind, finding.paths, finding.level) for finding in audit_folder(healthy).findings
    ]
    assert [found for found in findings if found[0] in ("blank", "dark")] == [
        ("blank", ("train/cat/blank.jpg",), "warning"),
        ("dark", ("val/dog/dark.png",), "warning"),
    ]


def test_a_mirrored_or_turned_copy_of_the_same_class_is_a_leak(healthy):
    """In two classes, the orientation may be what tells them apart, as with arrows."""
    save(healthy / "train/cat/new.jpg", scene(50))
    save(
        healthy / "val/cat/mirrored.jpg",
        scene(50).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        quality=60,
    )
    save(healthy / "val/cat/turned.jpg", scene(50).transpose(Image.Transpose.ROTATE_90), quality=80)
    save(healthy / "val/dog/turned.jpg", scene(50).transpose(Image.Transpose.ROTATE_180))
    (finding,) = found(healthy, "near duplicate")
    assert finding.message == "3 photos that look the same, mirrored or rotated, in train and val"
    assert finding.paths == ("train/cat/new.jpg", "val/cat/mirrored.jpg", "val/cat/turned.jpg")


@pytest.mark.parametrize("share", [0.01, 0.02, 0.03])
def test_a_cropped_copy_is_not_called_turned(tmp_path, share):
    for seed in range(60):
        photo = scene(seed, 400, 300)
        margins = (
            round(400 * share),
            round(300 * share),
            400 - round(400 * share / 3),
            300 - round(300 * share / 3),
        )
        save(tmp_path / "a" / f"{seed}.jpg", photo)
        save(tmp_path / "a" / f"{seed} cropped.jpg", photo.crop(margins), quality=50)
        save(tmp_path / "b" / f"{seed}.jpg", scene(seed + 100, 400, 300))
    findings = found(tmp_path, "near duplicate")
    assert len(findings) > 10 and not [
        finding for finding in findings if "rotated" in finding.message
    ]


def test_a_copy_and_a_mirrored_one_are_one_finding(healthy):
    save(healthy / "train/cat/new.jpg", scene(50))
    save(healthy / "train/dog/copy.jpg", scene(50), quality=60)
    save(
        healthy / "train/cat/mirrored.jpg",
        scene(50).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        quality=60,
    )
    (finding,) = found(healthy, "near duplicate")
    assert (
        finding.message
        == "3 photos that look the same, mirrored or rotated, labelled 'cat' and 'dog'"
    )


def test_many_objects_of_one_shape_in_any_orientation_are_not_copies(healthy):
    """Each looks nearly like the next one, rotated; one photo has eight orientations."""
    for number in range(12):
        photo = Image.blend(scene(50), scene(51), 0.04 * number)
        turns = [None, *Image.Transpose]
        turn = turns[number % 8]
        save(
            healthy / "train/cat" / f"bolt {number}.png",
            photo if turn is None else photo.transpose(turn),
        )
    assert not found(healthy, "near duplicate")
    save(healthy / "train/cat/copy.jpg", Image.blend(scene(50), scene(51), 0), quality=60)
    assert [finding.paths for finding in found(healthy, "near duplicate")] == [
        ("train/cat/bolt 0.png", "train/cat/copy.jpg")
    ]
    (healthy / "train/cat/copy.jpg").unlink()
    for number in (8, 9, 10, 11):
        (healthy / "train/cat" / f"bolt {number}.png").unlink()
    assert len(found(healthy, "near duplicate")[0].paths) == 8


def test_near_duplicates_that_training_would_separate_are_a_leak(tmp_path):
    for seed in range(12):
        for quality in (95, 80, 60, 40):
            save(
                tmp_path / ("a" if seed % 2 else "b") / f"{seed} {quality}.jpg",
                scene(seed),
                quality=quality,
            )
    leaks = [
        finding
        for finding in found(tmp_path, "near duplicate")
        if "in train and val" in finding.message
    ]
    assert leaks and all(
        "once training splits them; edgetl data split keeps" in leak.message for leak in leaks
    )
    folders = scan(tmp_path)
    torn = {sample.path.name.split()[0] for sample in folders.train} & {
        sample.path.name.split()[0] for sample in folders.val
    }
    assert {leak.paths[0].split("/")[1].split()[0] for leak in leaks} == torn


def test_a_folder_name_that_is_not_unicode_is_an_error_as_in_training(healthy):
    for part in ("train", "val"):
        save(
            Path(os.fsdecode(os.fsencode(healthy / part) + b"/b\xff")) / "1.jpg",
            scene(90 + len(part)),
        )
    assert any("is not UTF-8" in finding.message for finding in found(healthy, "classes"))
    with pytest.raises(DataError, match="is not UTF-8"):
        scan(healthy)


def test_a_photo_too_long_and_thin_to_be_resized_is_an_error(healthy):
    save(healthy / "val/cat/line.png", Image.new("RGB", (1600, 1)))
    (finding,) = found(healthy, "unreadable")
    assert finding.level == "error" and "too long and thin" in finding.message


def test_a_photo_that_confuses_another_format_is_read(healthy):
    """Pillow's own look at this whole TGA file ends in an error of its IPTC reader."""
    header = (
        bytes([0x1C, 1, 1])
        + struct.pack("<HHB", 200, 10, 24)
        + struct.pack("<HHHHBB", 0, 0, 40, 40, 8, 0x20)
    )
    pixels = bytes(range(30)) + bytes(200 + (i % 10) for i in range(1600))
    (healthy / "train/cat/poly.tga").write_bytes(header + b"i" * 28 + pixels)
    assert audit_folder(healthy).counts["train"]["cat"] == 4


def test_the_test_part_is_searched_only_for_duplicates(healthy):
    save(healthy / "test/cat/new.jpg", scene(90))
    shutil.copy(healthy / "train/cat/0.jpg", healthy / "test/cat/copy.jpg")
    result = audit_folder(healthy)
    assert result.counts["test"] == {"cat": 2}
    assert [finding.message for finding in result.findings] == [
        "the same bytes 2 times, in test and train"
    ]
    assert any("is left alone" in warning for warning in scan(healthy).warnings)


@pytest.mark.parametrize("kind", ["through a file", "to itself"])
def test_a_broken_link_affects_only_itself(healthy, kind):
    link = healthy / "train/cat/lost.jpg"
    link.symlink_to(healthy / "train/cat/0.jpg/x.jpg" if kind == "through a file" else "lost.jpg")
    assert [finding.paths for finding in found(healthy, "unreadable")] == [("train/cat/lost.jpg",)]
    assert link in find_images(healthy / "train")
    (healthy / "train/round").symlink_to("round")
    assert class_names(healthy / "train") == ["cat", "dog"]


def test_a_test_part_is_not_used_as_val(healthy):
    (healthy / "val").rename(healthy / "test")
    with pytest.raises(DataError, match=r"has train/ and test/, but no val/") as refused:
        audit_folder(healthy)
    assert "edgetl data split" in str(refused.value.hint)


def test_one_part_without_the_other_and_no_folder_are_refused(healthy, tmp_path):
    shutil.rmtree(healthy / "val")
    with pytest.raises(DataError, match=r"has train/, but no val/"):
        audit_folder(healthy)
    with pytest.raises(DataError, match="not a folder"):
        audit_folder(tmp_path / "nowhere")


def test_the_result_does_not_depend_on_threads_and_is_json(healthy):
    shutil.copy(healthy / "train/cat/0.jpg", healthy / "val/cat/花.jpg")
    calls: list[tuple[str, int, int]] = []
    one = audit_folder(healthy, threads=1, progress=lambda *call: calls.append(call))
    assert calls == [("Reading photos", done, 11) for done in range(12)]
    assert one == audit_folder(healthy, threads=5)
    values = json.loads(json.dumps(one.to_dict()))
    assert (values["errors"], values["findings"][0]["paths"]) == (
        1,
        ["train/cat/0.jpg", "val/cat/花.jpg"],
    )
