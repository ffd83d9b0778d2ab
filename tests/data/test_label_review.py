"""A review of labels: photos move, nothing else changes, and every decision can be taken back."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgetl.data.label_review import KEPT, MOVED, OPEN, DoubtfulPhoto, LabelReview
from edgetl.data.photo_source import PhotoSource
from edgetl.data.review_log import ReviewLog
from edgetl.errors import DataError

LABELS = ("ash", "brick", "clay")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """DATA/train with two photos a class, one of them in a folder of its own; files of text do."""
    for label in LABELS:
        for name in ("1.jpg", "day/2.jpg"):
            file = tmp_path / "data/train" / label / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{label} {name}")
    return tmp_path / "data"


def photo(file: str, label: str = "ash", answer: str = "brick") -> DoubtfulPhoto:
    return DoubtfulPhoto(file, label, answer, 0.9)


PHOTOS = [photo("train/ash/1.jpg"), photo("train/ash/day/2.jpg"), photo("train/clay/1.jpg", "clay")]


@contextmanager
def review(data: Path, photos: list[DoubtfulPhoto] = PHOTOS) -> Iterator[LabelReview]:
    with ReviewLog(data.parent / "review.jsonl") as log:
        yield LabelReview(PhotoSource.at(data), LABELS, photos, log)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def logged(data: Path) -> list[dict[str, object]]:
    lines = (data.parent / "review.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def states(found: LabelReview) -> list[str]:
    return [item.state for item in found.items]


def test_a_photo_moves_to_the_other_class_and_nothing_else_changes(data: Path) -> None:
    before = contents(data)
    with review(data) as found:
        found.move(1, "clay")
        assert states(found) == [OPEN, MOVED, OPEN]
        assert found.items[1].path == data / "train/clay/day/2-2.jpg"  # day/2.jpg is taken
        found.keep(2)
        assert found.counts == {OPEN: 1, MOVED: 1, KEPT: 1}
    after = contents(data)
    assert after.pop("train/clay/day/2-2.jpg") == before.pop("train/ash/day/2.jpg")
    assert after == before
    move, keep = logged(data)
    assert (move["action"], move["file"], move["to"]) == (
        "move",
        "train/ash/day/2.jpg",
        "train/clay/day/2-2.jpg",
    )
    assert (keep["action"], keep["file"], keep["label"]) == ("keep", "train/clay/1.jpg", "clay")


def test_everything_can_be_taken_back_also_in_a_later_review(data: Path) -> None:
    before = contents(data)
    with review(data) as found:
        found.move(0, "brick")
        found.keep(1)
        found.move(2, "ash")
        assert found.undo() == 2 and found.items[2].path == data / "train/clay/1.jpg"
        found.move(2, "brick")
    with review(data) as found:
        assert states(found) == [MOVED, KEPT, MOVED]
        assert [found.undo(), found.undo(), found.undo()] == [2, 1, 0]
        assert states(found) == [OPEN] * 3 and contents(data) == before
        with pytest.raises(DataError, match="nothing to undo"):
            found.undo()
    with review(data) as found:
        assert states(found) == [OPEN] * 3


def test_a_photo_that_moves_back_replaces_no_other_and_can_be_moved_again(data: Path) -> None:
    with review(data) as found:
        found.move(0, "brick")
        (data / "train/ash/1.jpg").write_text("another one")
        assert found.undo() == 0
        assert found.items[0].path == data / "train/ash/1-2.jpg"
        found.move(0, "clay")
        assert found.undo() == 0
    assert contents(data / "train/ash") == {
        "1.jpg": "another one",
        "1-2.jpg": "ash 1.jpg",
        "day/2.jpg": "ash day/2.jpg",
    }


def test_a_kept_photo_is_known_by_its_content_and_label(data: Path) -> None:
    with review(data) as found:
        found.keep(0)
    (data / "train/ash/1.jpg").rename(data / "train/ash/renamed.jpg")
    (data / "train/ash/day/2.jpg").write_text("changed")
    photos = [photo("train/ash/renamed.jpg"), photo("train/ash/day/2.jpg")]
    with review(data, photos) as found:
        assert states(found) == [KEPT, OPEN]


def test_photos_that_are_gone_or_outside_are_left_out_and_counted(data: Path) -> None:
    (data.parent / "outside.jpg").write_text("secret")
    (data / "val/ash").mkdir(parents=True)
    (data / "val/ash/1.jpg").write_text("to validate on")
    files = ("train/ash/gone.jpg", "../outside.jpg", "train/ash/../../../outside.jpg")
    for file in (*files, "val/ash/1.jpg"):
        with review(data, [photo(file)]) as found:
            assert (found.items, found.missing) == ([], 1)


@pytest.mark.parametrize("label", ["ash", "", "../../etc", "unknown"])
def test_a_photo_moves_only_to_another_class(data: Path, label: str) -> None:
    before = contents(data)
    with review(data) as found:
        with pytest.raises(DataError, match="not another class"):
            found.move(0, label)
        found.move(0, "brick")
        for decide in (lambda: found.move(0, "clay"), lambda: found.keep(0), lambda: found.keep(7)):
            with pytest.raises(DataError, match="decided already"):
                decide()
        found.undo()
    assert contents(data) == before


@pytest.mark.parametrize("taken", [False, True], ids=["before", "after the name was taken"])
@pytest.mark.parametrize("undo", [False, True], ids=["move", "undo"])
def test_a_review_killed_between_log_and_move_leaves_the_photo_where_it_is(
    data: Path, monkeypatch: pytest.MonkeyPatch, taken: bool, undo: bool
) -> None:
    def killed(path: Path, *arguments: object) -> None:
        raise KeyboardInterrupt

    with review(data) as found:
        if undo:
            found.move(0, "brick")
        before = contents(data)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "replace" if taken else "open", killed)
            found.undo() if undo else found.move(0, "brick")
    assert (contents(data) == before) is not taken
    with review(data) as found:
        assert contents(data) == before
        assert states(found) == [MOVED if undo else OPEN, OPEN, OPEN]
        found.undo() if undo else found.move(0, "brick")
    place = "ash/1.jpg" if undo else "brick/1-2.jpg"
    assert contents(data / "train")[place] == "ash 1.jpg"


def test_a_move_that_fails_is_taken_back_in_the_log(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    before = contents(data)
    with review(data) as found:
        with monkeypatch.context() as patch, pytest.raises(DataError, match="No space left"):
            patch.setattr(Path, "replace", full)
            found.move(0, "brick")
        assert states(found) == [OPEN] * 3 and contents(data) == before
        found.move(0, "brick")
        assert found.undo() == 0
    assert [line["action"] for line in logged(data)] == ["move", "undo", "move", "undo"]


def test_an_undo_of_a_photo_that_was_deleted_meanwhile_does_not_block_the_others(
    data: Path,
) -> None:
    with review(data) as found:
        found.keep(1)
        found.move(0, "brick")
        found.items[0].path.unlink()
        assert [found.undo(), found.undo()] == [0, 1]


def test_half_a_line_at_the_end_of_the_log_is_no_decision(data: Path) -> None:
    with review(data) as found:
        found.keep(0)
    log = data.parent / "review.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:40])
    with review(data) as found:
        assert states(found) == [KEPT, OPEN, OPEN]
        found.keep(1)
    assert len(logged(data)) == 2
    log.write_bytes(b"not JSON\n" + whole)
    with pytest.raises(DataError, match=r"review\.jsonl, line 1"), review(data):
        pass


def test_two_reviews_at_once_are_refused(data: Path) -> None:
    with review(data), pytest.raises(DataError, match="Another review"), review(data):
        pass


def write_list(data: Path) -> Path:
    file = data.parent / "photos.csv"
    file.write_text(
        "image;class;part;weight\n"
        + "".join(
            f"data/train/{label}/{name};{label};train;1\n"
            for label in LABELS
            for name in ("1.jpg", "day/2.jpg")
        )
    )
    return file


def rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.reader(lines))


LISTED = [photo("data/train/ash/1.jpg"), photo("data/train/clay/1.jpg", "clay")]


def test_a_list_is_corrected_in_a_copy_beside_it(data: Path) -> None:
    file = write_list(data)
    before = contents(data.parent)
    (data.parent / "photos.reviewed.csv").write_text("of someone else")
    with review(file, LISTED) as found:
        found.move(0, "clay")
        found.move(1, "brick")
        found.keep(0) if found.undo() == 0 else found.move(1, "ash")
        assert states(found) == [MOVED, MOVED]
    copy = data.parent / "photos.reviewed-2.csv"
    assert rows(copy) == [
        ["path", "label", "split"],
        ["data/train/ash/1.jpg", "clay", "train"],
        ["data/train/ash/day/2.jpg", "ash", "train"],
        ["data/train/brick/1.jpg", "brick", "train"],
        ["data/train/brick/day/2.jpg", "brick", "train"],
        ["data/train/clay/1.jpg", "ash", "train"],
        ["data/train/clay/day/2.jpg", "clay", "train"],
    ]
    assert {name: text for name, text in contents(data.parent).items() if name in before} == before
    copy.unlink()
    with review(file, LISTED) as found:  # killed before the copy was written
        assert rows(copy)[1][1] == "clay"
        assert states(found) == [MOVED, MOVED]
        assert found.undo() == 1 and rows(copy)[5][1] == "clay"
    with review(copy, LISTED) as found:  # the next run was trained on the copy
        assert states(found) == [MOVED, OPEN]
        found.move(1, "brick")
    assert rows(data.parent / "photos.reviewed-2.reviewed.csv")[5][1] == "brick"


def decision(**changes: object) -> dict[str, object]:
    values = {"action": "move", "file": "train/ash/1.jpg", "label": "ash", "digest": "0"}
    return values | {"new_label": "brick", "to": "train/brick/9.jpg"} | changes


def test_a_log_of_other_photos_moves_nothing(data: Path) -> None:
    """The run may have been trained on a list before, or its log be of someone else's making."""
    empty, notes = data.parent / "empty.txt", data.parent / "notes.txt"
    empty.touch()
    notes.write_text("mine")
    log = data.parent / "review.jsonl"
    file = write_list(data)
    before = contents(data.parent)
    outside = "../empty.txt", str(empty), "../notes.txt", str(notes)
    for to in (*outside, "train/clay/1.jpg", "\0", ""):
        log.write_text(json.dumps(decision(to=to)) + "\n")
        for source in (data, file):
            with review(source) as found, pytest.raises(DataError, match="nothing to undo"):
                found.undo()
        log.unlink()
        assert contents(data.parent) == before


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "[" * 100_000,
        json.dumps(decision(to=5)),
        json.dumps(decision(undoes=[])),
        json.dumps(decision(action="delete")),
        json.dumps(decision(file=None)),
    ],
    ids=["null", "deep", "to", "undoes", "action", "file"],
)
def test_what_is_no_decision_is_refused_and_stays(data: Path, line: str) -> None:
    log = data.parent / "review.jsonl"
    for text in (line, line + "\n"):
        log.write_text(text)
        with pytest.raises(DataError, match=r"review\.jsonl, line 1"), review(data):
            pass
        assert log.read_text() == text


def test_a_last_line_without_its_end_is_a_decision_where_it_is_whole(data: Path) -> None:
    with review(data) as found:
        found.move(0, "brick")
    log = data.parent / "review.jsonl"
    log.write_bytes(log.read_bytes().rstrip())  # as some editors do
    with review(data) as found:
        assert states(found) == [MOVED, OPEN, OPEN]
        found.keep(1)
    assert [line["action"] for line in logged(data)] == ["move", "keep"]


@pytest.mark.parametrize("label", ["..", "../out", "/tmp/out", "a/b", ".", "", "nul\0"])
def test_a_label_that_is_no_folder_name_moves_nothing(data: Path, label: str) -> None:
    before = contents(data)
    with ReviewLog(data.parent / "review.jsonl") as log:
        found = LabelReview(PhotoSource.at(data), ("ash", label), PHOTOS, log)
        with pytest.raises(DataError, match="can't be the name"):
            found.move(0, label)
    assert contents(data) == before and logged(data) == []
