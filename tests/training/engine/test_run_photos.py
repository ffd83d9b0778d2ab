"""Runs on photos that can't be read, go, or have odd names, and whose decoding processes end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import pytest
from helpers.photo_samples import cut_short
from helpers.training_runs import Notebook, small, train
from torch.utils.data import get_worker_info

from edgetl.data.image_folder import read_sample, scan
from edgetl.errors import DataError, ImageError, TrainingError
from edgetl.training.config.listener import Listener
from edgetl.training.config.recipes import resolve
from edgetl.training.engine import loop as loop_module
from edgetl.training.engine.resumed_run import resume
from edgetl.training.engine.train_state import read_state
from edgetl.training.input import decoded_photos
from edgetl.training.input.file_loader import explain_worker_errors
from edgetl.training.models import checkpoint


@pytest.mark.parametrize("changes", [{"cache": "memory"}, {"cache": "off"}])
def test_unreadable_photos_are_found_before_any_epoch(two_parts, tmp_path, changes):
    (two_parts / "train/ash/000.png").write_bytes(b"not a photo")
    notebook = Notebook()
    train(small(two_parts, epochs=1, **changes), tmp_path / "run", listener=notebook)
    assert any("train/ash/000.png" in note for note in notebook.notes)
    assert checkpoint.load(tmp_path / "run").card.data["train"] == 15
    (two_parts / "val/brick/100.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"val/brick/100\.png"):
        train(small(two_parts, **changes), tmp_path / "other")
    assert not (tmp_path / "other/best.safetensors").exists()


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("strategy", ["full", "features"])
def test_where_no_val_folder_says_otherwise_damaged_photos_are_left_out_of_both_parts(
    write_photos, tmp_path, monkeypatch, strategy, room
):
    """The run is that of a folder without them; they are truncated so that the split stays."""
    data = write_photos(tmp_path / "data", {"ash": 20, "brick": 20})
    whole = scan(data)
    lost = [whole.train[0].path, whole.val[0].path]
    for path in lost:
        cut_short(path, data)
    sound = replace(whole.without(dict.fromkeys(lost, "cut short")), warnings=())
    if not room:
        monkeypatch.setattr("edgetl.training.evaluation.validation.allocate", lambda *_: None)
    given = {
        "backbone": "timm/small_backbone",
        "weights": "none",
        "image_size": 32,
        "device": "cpu",
        "feature_cache": "off",
    }
    given |= {"epochs": 2, "batch_size": 8, "workers": 1} if strategy == "full" else {}
    rows, notebook = [], Notebook()
    for number, folders in enumerate((None, sound)):
        train(
            resolve(data, {**given, "strategy": strategy}, cuda=False),
            tmp_path / f"run{number}",
            listener=notebook,
            folders=folders,
        )
        rows.append(json.loads((tmp_path / f"run{number}/metrics.json").read_text()))
    assert any("2 photos can't be read and left out" in note for note in notebook.notes)
    assert rows[0] == rows[1]


def test_copies_of_a_photo_that_can_not_be_read_are_all_left_out(two_parts, tmp_path):
    for name in ("ash", "brick"):
        (two_parts / f"train/{name}/bad.png").write_bytes(b"not a photo")
    notebook = Notebook()
    settings = resolve(
        two_parts,
        {"backbone": "timm/small_backbone", "weights": "none", "feature_cache": "off"},
        cuda=False,
    )
    train(settings, tmp_path / "run", listener=notebook)
    assert checkpoint.load(tmp_path / "run").card.data["train"] == 16
    assert any(
        "train/ash/bad.png" in note and "train/brick/bad.png" in note for note in notebook.notes
    )


def test_a_photo_that_goes_while_it_is_decoded_in_every_epoch_is_named(two_parts, tmp_path):
    gone = sorted((two_parts / "train").rglob("*.png"))[0]

    class Remover(Listener):
        def epoch(self, row):
            gone.unlink(missing_ok=True)

    with pytest.raises(DataError, match=f"{gone.name}: no such file") as caught:
        train(small(two_parts, cache="off", epochs=3), tmp_path / "run", listener=Remover())
    assert "--resume" in caught.value.hint
    assert (tmp_path / "run/last.pt").exists()


def test_a_worker_process_that_is_killed_while_something_is_written_disturbs_no_write(
    two_parts, tmp_path, monkeypatch
):
    plain = loop_module.write_state

    def write(folder, state):
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()
        plain(folder, state)

    with (
        monkeypatch.context() as patch,
        pytest.raises(TrainingError, match="was killed"),
    ):
        patch.setattr(loop_module, "write_state", write)
        train(small(two_parts, cache="off", epochs=5, save_every=1e-6), tmp_path / "run")
    assert read_state(tmp_path / "run")["train_state"]["step"] > 0
    assert resume(tmp_path / "run").finished


def test_a_photo_that_changes_while_it_is_decoded_in_every_epoch_is_named(two_parts, tmp_path):
    photo, other = sorted((two_parts / "train").rglob("*.png"))[0::15]

    class Changer(Listener):
        def epoch(self, row):
            photo.write_bytes(other.read_bytes())

    with pytest.raises(DataError, match=f"{photo.name}: it changed"):
        train(small(two_parts, cache="off", epochs=3), tmp_path / "run", listener=Changer())


@pytest.fixture
def reading_in_workers(monkeypatch):
    """Has processes that decode photos read them with a function given; others read as ever."""

    def replace(read):
        monkeypatch.setattr(
            decoded_photos,
            "read_sample",
            lambda sample: (read if get_worker_info() else original)(sample),
        )

    original = decoded_photos.read_sample
    return replace


def test_an_error_that_nobody_foresaw_ends_the_run_and_its_workers(
    two_parts, tmp_path, reading_in_workers
):
    reading_in_workers(lambda sample: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        train(small(two_parts, cache="off"), tmp_path / "run")
    assert (
        caught.traceback and not multiprocessing.active_children()
    )  # while its frames hold all that was at work


def test_a_process_that_hangs_in_a_read_does_not_outlive_the_run(
    two_parts, tmp_path, reading_in_workers
):
    def read(sample):
        if get_worker_info().id:
            time.sleep(1000)
        raise ImageError(str(sample.path), "it is gone")

    reading_in_workers(read)
    with pytest.raises(DataError, match="it is gone"):
        train(small(two_parts, cache="off", workers=2), tmp_path / "run")
    until = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_a_worker_process_that_is_killed_is_told_as_such(two_parts, tmp_path, reading_in_workers):
    reading_in_workers(lambda sample: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(TrainingError, match="was killed"):
        train(small(two_parts, cache="off"), tmp_path / "run")


def test_a_pipe_among_the_photos_is_refused_and_not_waited_for(two_parts, tmp_path):
    os.mkfifo(two_parts / "train/ash/pipe.jpg")
    notebook = Notebook()
    train(small(two_parts, epochs=1), tmp_path / "run", listener=notebook)
    assert any("pipe.jpg" in note for note in notebook.notes)


def test_names_that_are_no_text(two_parts, tmp_path):
    photo = two_parts / "val/ash/100.png"
    photo.rename(photo.with_name("\udcff.png"))
    train(small(two_parts, epochs=1), tmp_path / "run")
    assert (tmp_path / "run/report.html").is_file()
    (two_parts / "train/ash").rename(two_parts / "train/\udcfe")
    (two_parts / "val/ash").rename(two_parts / "val/\udcfe")
    with pytest.raises(DataError, match="not UTF-8"):
        train(small(two_parts, epochs=1), tmp_path / "other")


@pytest.mark.parametrize(
    "thread", ["DataLoader worker (pid 1) is killed", "Pin memory thread exited unexpectedly"]
)
def test_it_is_told_so_whichever_notices_first(thread):
    def stream():
        yield 1
        raise RuntimeError(thread)

    with pytest.raises(TrainingError, match="was killed"):
        list(explain_worker_errors(stream()))


def test_ctrl_c_that_comes_to_all_processes_is_told_once(two_parts, tmp_path, reading_in_workers):
    """As a terminal's does: here, it comes to those alone that should keep still."""

    class Told(Listener):
        def stopping(self, sentence):
            (tmp_path / "told").touch()

    def read(sample):
        os.kill(os.getpid(), signal.SIGINT)
        return read_sample(sample)

    reading_in_workers(read)
    assert train(
        small(two_parts, cache="off", epochs=1), tmp_path / "run", listener=Told()
    ).finished
    assert not (tmp_path / "told").exists()
