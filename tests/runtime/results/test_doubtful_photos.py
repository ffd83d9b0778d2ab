"""The photos of a day that are most worth labelling: which, how many, and where."""

from __future__ import annotations

import json
import threading
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import photo

from edgetl.errors import EdgetlError, ImageError
from edgetl.runtime.inference.prediction import Prediction
from edgetl.runtime.results import doubtful_photos
from edgetl.runtime.results.doubtful_photos import ANSWERS_FILE, DoubtfulPhotos, doubt


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    files = [folder / f"{number}.PNG" for number in range(12)]
    for number, file in enumerate(files):
        photo(number, 8, 6).save(file)
    return files


def answer(
    file: Path, score: float | None, first: float = 0.9, embedding: np.ndarray | None = None
) -> Prediction:
    shares = np.array([first, 1 - first], np.float32)
    return Prediction(
        str(file), ("cat", "dog"), shares, shares, ood_score=score, embedding=embedding
    )


def kept(folder: Path) -> list[str]:
    """The names of the originals, as the list has them, which must agree with the copies."""
    day = folder / date.today().isoformat()
    rows = [json.loads(line) for line in (day / ANSWERS_FILE).read_text("utf-8").splitlines()]
    assert {file.name for file in day.iterdir()} == {ANSWERS_FILE, *(row["path"] for row in rows)}
    for row in rows:
        assert (day / row["path"]).read_bytes() == Path(row["original"]).read_bytes()
        assert row["model"] == "m1" and "label" not in row and row["predicted"] == "cat"
    return [Path(row["original"]).stem for row in rows]


def run(folder: Path, files: list[Path], scores: list[float], most: int = 3) -> None:
    collected = DoubtfulPhotos(folder, most, "m1")
    for file, score in zip(files, scores, strict=True):
        collected.add(answer(file, score))
    collected.add(ImageError("broken.png", "it is no photo"))
    collected.save()


def test_the_most_doubtful_ones_are_kept_the_most_doubtful_first(photos, tmp_path):
    run(tmp_path / "new/place", photos[:5], [0.1, 0.5, 0.3, 0.9, 0.2])
    assert kept(tmp_path / "new/place") == ["3", "1", "2"]
    assert len(photos) == 12 and all(file.is_file() for file in photos)


def test_several_runs_of_a_day_keep_no_more(photos, tmp_path):
    run(tmp_path, photos[:4], [4, 1, 3, 2])
    run(tmp_path, photos[4:8], [3.5, 0, 5, 1.5])
    assert kept(tmp_path) == ["6", "0", "4"]
    run(tmp_path, photos[4:8], [3.5, 0, 5, 1.5])  # the same photos again
    assert kept(tmp_path) == ["6", "0", "4"]


def test_copies_of_a_photo_leave_room_for_others(photos, tmp_path):
    again = [tmp_path / f"again{number}.png" for number in range(4)]
    for file in again:
        file.write_bytes(photos[0].read_bytes())
    collected = DoubtfulPhotos(tmp_path / "kept", 3, "m1")
    for file in (photos[0], *again):
        collected.add(answer(file, 9.5 if file == again[1] else 9))
    for file, score in ((photos[1], 2), (photos[2], 1)):
        collected.add(answer(file, score))
    collected.save()
    assert kept(tmp_path / "kept") == ["0", "1", "2"] and collected.copies == 4
    run(tmp_path / "kept", again[:1], [9])  # by another process
    assert len(kept(tmp_path / "kept")) == 3


def test_photos_that_look_the_same_to_the_model_are_kept_once(photos, tmp_path):
    rng = np.random.default_rng(0)
    seen = rng.normal(0, 0.09, (6, 128)).astype(np.float32)
    seen[1:3] = seen[0] + rng.uniform(-5e-5, 5e-5, (2, 128))  # the same pixels in another file
    for turn, some in enumerate(([0, 1, 3], [2, 4, 5])):  # two runs of a day
        collected = DoubtfulPhotos(tmp_path, 4, "m1")
        for number in some:
            collected.add(answer(photos[number], 9.0 - number, embedding=seen[number]))
        collected.save()
        assert collected.copies == 1, turn
    assert kept(tmp_path) == ["0", "3", "4", "5"]
    other = DoubtfulPhotos(tmp_path, 4, "m1")
    other.add(answer(photos[6], 99.0, embedding=seen[0][:5]))  # nothing to compare it with
    other.save()
    assert kept(tmp_path)[0] == "6"


def test_a_photo_that_changed_meanwhile_is_left_out(photos, tmp_path):
    latest = tmp_path / "latest.png"
    latest.write_bytes(photos[0].read_bytes())
    collected = DoubtfulPhotos(tmp_path / "kept", 3, "m1")
    collected.add(answer(latest, 2.0))
    latest.write_bytes(photos[1].read_bytes())
    collected.add(answer(photos[2], 1.0))
    collected.save()
    assert kept(tmp_path / "kept") == ["2"]


def test_several_processes_at_once_keep_the_best_of_all(photos, tmp_path):
    def one(number: int) -> None:
        for turn in range(3):
            run(tmp_path, [photos[number]], [float(number + turn / 10)])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept(tmp_path) == ["7", "6", "5"]


def test_every_moment_that_a_kill_can_hit_leaves_photos_with_answers(photos, tmp_path, monkeypatch):
    run(tmp_path, photos[:3], [1, 2, 3])
    day = tmp_path / date.today().isoformat()

    def killed(path: Path, write: object) -> None:
        (day / f".{path.name}.1.part").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(doubtful_photos, "atomic_write", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, photos[3:5], [9, 8])
    monkeypatch.undo()
    rows = [json.loads(line) for line in (day / ANSWERS_FILE).read_text("utf-8").splitlines()]
    assert all((day / row["path"]).is_file() for row in rows) and len(rows) == 3
    run(tmp_path, photos[5:6], [2.5])
    assert kept(tmp_path) == ["2", "5", "1"]


def test_what_else_lies_there_is_left_alone(photos, tmp_path):
    day = tmp_path / date.today().isoformat()
    day.mkdir()
    (day / "notes.txt").write_text("mine")
    foreign = ['"../../x", "doubt": 9.0', '5, "doubt": 9.0', f'"{"0" * 32}.png", "doubt": NaN']
    lines = ["nonsense", "[1]", "[" * 100_000, *(f'{{"path": {row}}}' for row in foreign)]
    (day / ANSWERS_FILE).write_text("\n".join(lines) + "\n")
    (day / f"{'0' * 32}.png").write_text("")
    run(tmp_path, photos[:1], [1])
    assert (day / "notes.txt").read_text() == "mine"
    (day / "notes.txt").unlink()
    assert kept(tmp_path) == ["0"]


def test_a_photo_that_was_removed_meanwhile_is_left_out(photos, tmp_path):
    run(tmp_path, [tmp_path / "gone.png", photos[0]], [9, 1])
    assert kept(tmp_path) == ["0"]


def test_long_runs_save_as_they_go(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(doubtful_photos, "_SAVE_SECONDS", -1.0)
    collected = DoubtfulPhotos(tmp_path, 3, "m1")
    collected.add(answer(photos[0], 1.0))
    assert kept(tmp_path) == ["0"]


def test_without_a_score_the_undecided_are_the_doubtful_ones(photos):
    sure, undecided = answer(photos[0], None, 0.99), answer(photos[0], None, 0.5)
    assert doubt(undecided) > doubt(sure) > doubt(answer(photos[0], None, 1.0)) == 0
    assert doubt(answer(photos[0], 7.5)) == 7.5


def test_a_folder_that_cannot_be_written_is_an_error(photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgetlError, match=r"can't be kept in .*file/place"):
        DoubtfulPhotos(tmp_path / "file/place", 3, "m1")
    with monkeypatch.context() as patch:  # the tests may run as root, whom nothing is refused
        patch.setattr("os.access", lambda *_: False)
        with pytest.raises(EdgetlError, match=r"can't be kept in .*: Permission denied"):
            DoubtfulPhotos(tmp_path, 3, "m1")
    (tmp_path / date.today().isoformat()).write_text("")
    with pytest.raises(EdgetlError, match="Doubtful photos can't be kept"):
        run(tmp_path, photos[:1], [1])
