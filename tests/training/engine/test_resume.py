"""Interrupted runs continue as if they had never stopped: bit for bit on the CPU."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import shutil
import signal
import struct
import sys
import threading
import time
import zipfile
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_backbone import DROPOUT_BACKBONE
from helpers.training_runs import SOLVED, signal_in_step, small, train

from edgetl.errors import CheckpointError, DataError, RuntimeUnavailableError, TrainingError
from edgetl.training.config.run_folder import BEST, LAST
from edgetl.training.config.run_lock import lock_run_folder
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine import loop as loop_module
from edgetl.training.engine import training_setup
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.resumed_run import resume
from edgetl.training.engine.train_state import read_state, write_state
from edgetl.training.head import label_issues

MIXED = {
    "epochs": 3,
    "ema": 0.9,
    "mixup": 0.3,
    "momentum": 0.9,
    "optimizer": "sgd",
    "save_every": 1e-6,
}


def test_a_photo_that_changes_while_a_run_is_resumed_is_named(two_parts, tmp_path, monkeypatch):
    settings, run = small(two_parts, epochs=3, cache="memory"), tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGINT)
        assert not train(settings, run).finished
    photo, other = sorted((two_parts / "train").rglob("*.png"))[0::15]
    before, plain = photo.read_bytes(), training_setup.decode_photos

    def meanwhile(*arguments, **options):
        photo.write_bytes(other.read_bytes())
        return plain(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training_setup, "decode_photos", meanwhile)
        with pytest.raises(DataError, match=f"{photo.name}: it changed"):
            resume(run)
    photo.write_bytes(before)
    assert resume(run).finished


def in_process(folder: Path, settings: TrainSettings | None) -> None:
    outcome = train(settings, folder) if settings else resume(folder)
    sys.exit(0 if outcome.finished else 130)


def start(folder: Path, settings: TrainSettings | None = None) -> BaseProcess:
    """A process that begins the run, or resumes it; forked: importing torch takes seconds."""
    process = multiprocessing.get_context("fork").Process(
        target=in_process, args=(folder, settings)
    )
    process.start()
    return process


def wait_for(condition, process: BaseProcess) -> None:
    """Until ``condition`` holds, or the process has ended."""
    while not condition() and process.is_alive():
        time.sleep(0.03)  # reading the saved state takes as long as the step that saves it


def position(folder: Path) -> tuple[int, int]:
    try:
        values = read_state(folder)["train_state"]
    except CheckpointError:
        return (-1, 0)
    return values["epoch"], values["step"]


@pytest.fixture
def one_thread():
    """A forked process can't use torch's threads, and a sum split otherwise rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_run_killed_at_random_points_ends_with_the_same_bits(two_parts, tmp_path, one_thread):
    settings = small(two_parts, **{**MIXED, "batch_size": 2})
    train(settings, tmp_path / "whole")
    target = tmp_path / "killed"
    chance = random.Random(7)
    process = start(target, settings)
    kills = 0
    for place in [(0, 2), (0, 6), (1, 1), (2, 3)]:
        wait_for(lambda place=place: position(target) >= place, process)
        time.sleep(chance.random() * 0.02)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        process = start(target)
    process.join()
    assert process.exitcode == 0
    assert kills >= 3
    assert (target / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()
    whole, killed = read_state(tmp_path / "whole"), read_state(target)
    for part in ("network", "average"):
        assert_same(whole["learner"][part], killed["learner"][part])


def assert_same(one, other) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cache": "off", "backbone": DROPOUT_BACKBONE},
        {"scheduler": "plateau", "accumulate": 2, "epochs": 3},
        {"scheduler": "one-cycle"},
    ],
)
def test_ctrl_c_stops_after_the_step_and_the_run_goes_on_from_there(
    two_parts, tmp_path, monkeypatch, changes
):
    """In the middle of an epoch, and at the end of one, when the machine shuts down."""
    settings = small(two_parts, **changes)
    whole, steps = tmp_path / "whole", 2 if "accumulate" in changes else 4
    train(settings, whole)
    for kind, number in ((signal.SIGINT, 3), (signal.SIGTERM, 4)):
        stopped = tmp_path / kind.name
        with monkeypatch.context() as patch:
            signal_in_step(patch, number, kind)
            assert not train(settings, stopped).finished
        assert position(stopped) == divmod(number, steps)
        assert resume(stopped).finished
        assert (stopped / BEST).read_bytes() == (whole / BEST).read_bytes()
        rows = [(run / "history.csv").read_text().splitlines() for run in (whole, stopped)]
        assert len(rows[0]) == len(rows[1]) == settings.epochs + 1


def test_a_second_ctrl_c_does_not_wait(two_parts, tmp_path, monkeypatch):
    def step(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Learner, "step", step)
    # As in a terminal; a job in the background inherits a Ctrl-C that is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(small(two_parts), tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_handler_is_left_as_it_was(two_parts, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    train(small(two_parts, epochs=1), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before


def test_training_works_outside_the_main_thread(two_parts, tmp_path):
    outcomes = []
    thread = threading.Thread(
        target=lambda: outcomes.append(train(small(two_parts, epochs=1), tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert outcomes[0].finished


def test_what_can_not_be_resumed_is_said(two_parts, tmp_path):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        resume(tmp_path)
    train(small(two_parts, epochs=1), tmp_path / "run")
    with pytest.raises(TrainingError, match="is finished"):
        resume(tmp_path / "run")
    (tmp_path / "run" / LAST).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="can't be read"):
        resume(tmp_path / "run")


def test_a_flipped_bit_in_the_saved_state_is_noticed(two_parts, tmp_path, monkeypatch):
    signal_in_step(monkeypatch, 2, signal.SIGINT)
    train(small(two_parts), tmp_path / "run")
    content = bytearray((tmp_path / "run" / LAST).read_bytes())
    with zipfile.ZipFile(tmp_path / "run" / LAST) as records:
        largest = sorted(records.infolist(), key=lambda record: record.file_size)[-3:]
    for record in largest:  # between records lies padding, of which nothing is read
        name, extra = struct.unpack_from("<HH", content, record.header_offset + 26)
        flipped = content[:]
        flipped[record.header_offset + 30 + name + extra + record.file_size // 2] ^= 16
        (tmp_path / "run" / LAST).write_bytes(flipped)
        with pytest.raises(CheckpointError, match="can't be read"):
            resume(tmp_path / "run")


def test_a_run_that_needs_a_gpu_says_so_before_it_looks_at_a_photo(
    two_parts, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    signal_in_step(monkeypatch, 2, signal.SIGINT)
    assert not train(small(two_parts), run).finished
    state = read_state(run)
    write_state(run, {**state, "settings": {**state["settings"], "precision": "fp16"}})
    monkeypatch.setattr("edgetl.training.engine.resumed_run.find_photos", None)
    with pytest.raises(RuntimeUnavailableError, match="fp16 is for GPUs"):
        resume(run)


def test_photos_that_changed_are_noticed(two_parts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGINT)
        train(small(two_parts), tmp_path / "run")
    (two_parts / "train/ash/000.png").rename(two_parts / "train/ash/other.png")
    with pytest.raises(TrainingError, match="have changed"):
        resume(tmp_path / "run")
    (two_parts / "train/ash/other.png").rename(two_parts / "train/ash/000.png")
    (two_parts / "train/ash/new.png").write_text("no photo")  # it was never one that could be read
    monkeypatch.setattr(
        "edgetl.training.engine.resumed_run.prepare_training", None
    )  # and nothing is decoded first
    with pytest.raises(TrainingError, match="have changed"):
        resume(tmp_path / "run")


def test_a_full_disk_is_an_error_and_the_earlier_state_stays(two_parts, tmp_path, monkeypatch):
    """A limit on file size stands for the full disk: the write fails in the middle either way."""
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGINT)
        train(small(two_parts), tmp_path / "run")
    before = (tmp_path / "run" / LAST).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        with pytest.raises(CheckpointError, match=r"last\.pt can't be written"):
            write_state(tmp_path / "run", read_state(tmp_path / "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "run" / LAST).read_bytes() == before
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LAST}
    assert resume(tmp_path / "run").finished


def test_state_is_saved_every_so_many_seconds(two_parts, tmp_path, monkeypatch):
    saved = []
    plain = loop_module.write_state
    monkeypatch.setattr(
        loop_module,
        "write_state",
        lambda folder, state: (saved.append(state["train_state"]["step"]), plain(folder, state)),
    )
    train(small(two_parts, epochs=1, save_every=1e-6), tmp_path / "often")
    assert saved == [0, 1, 2, 3, 0, 0]  # the start, three steps, the epoch's end, the run's end
    saved.clear()
    train(small(two_parts, epochs=3, save_every=3600), tmp_path / "seldom")
    assert saved == [0, 0, 0]  # not after each short epoch
    saved.clear()
    train(
        small(two_parts, epochs=1, save_every=3600, **SOLVED),
        tmp_path / "solved",
    )
    assert saved == [0, 0, 0, 0]  # and when the solved head was judged


def test_a_run_begun_on_a_gpu_goes_on_here_without_its_kernels(two_parts, tmp_path, monkeypatch):
    settings = small(two_parts, optimizer="adamw", ema=0.0)
    train(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        signal_in_step(patch, 3, signal.SIGINT)
        assert not train(settings, tmp_path / "run").finished
    state = read_state(tmp_path / "run")
    for group in state["learner"]["optimizer"]["param_groups"]:
        group["fused"] = True
    write_state(tmp_path / "run", {key: value for key, value in state.items() if key != "schema"})
    assert resume(tmp_path / "run").finished
    assert (tmp_path / "run" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()
    assert not any(
        group["fused"]
        for group in read_state(tmp_path / "run")["learner"]["optimizer"]["param_groups"]
    )


def test_a_run_stopped_before_a_smaller_batch_compiles_for_the_larger_ones(
    two_parts, tmp_path, compiled_sizes, monkeypatch
):
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGINT)
        assert not train(small(two_parts, compile=True, batch_size=6), tmp_path / "run").finished
    compiled_sizes.clear()
    torch._dynamo.reset()
    assert resume(tmp_path / "run").finished  # with 4 photos, then 6
    assert compiled_sizes == [{6}]


def test_what_was_left_out_when_the_run_began_stays_left_out(two_parts, tmp_path, monkeypatch):
    """Decoders differ in what they can read; on a GPU chance decides which one a photo meets."""
    (two_parts / "train/ash/bad.png").write_bytes(b"not a photo")
    settings = small(two_parts)
    train(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        signal_in_step(patch, 3, signal.SIGINT)
        assert not train(settings, tmp_path / "run").finished
    plain = training_setup._store_training

    def otherwise(*arguments):
        return replace(plain(*arguments), unreadable={})

    monkeypatch.setattr(training_setup, "_store_training", otherwise)
    assert resume(tmp_path / "run").finished
    assert (tmp_path / "run" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


@pytest.mark.parametrize("changes", [{"early_stop": 1}, {"max_time": 1e-9}])
def test_a_run_that_ended_early_is_not_trained_on_when_its_last_words_were_cut_off(
    two_parts, tmp_path, monkeypatch, changes
):
    def killed(*_, **__):
        raise KeyboardInterrupt

    settings = small(two_parts, epochs=9, lr=1e-9, ema=0.0, **changes)
    train(settings, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("edgetl.training.engine.epochs.finalize", killed)
        train(settings, tmp_path / "killed")
    assert not read_state(tmp_path / "killed")["train_state"]["finished"]
    assert resume(tmp_path / "killed").finished
    assert position(tmp_path / "killed") == position(tmp_path / "whole") != (9, 0)
    assert (tmp_path / "killed" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "number", [2, 5, 6, 10]
)  # saves: the beginning, the solved head, three steps, the epoch …
def test_a_run_killed_around_a_save_has_no_row_or_note_too_few_or_too_many(
    two_parts, tmp_path, monkeypatch, number, when
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    saves = 0
    plain = loop_module.write_state

    def killed(folder, state):
        nonlocal saves
        if (saves := saves + 1) == number and when == "before":
            raise KeyboardInterrupt
        plain(folder, state)
        if saves == number:
            raise KeyboardInterrupt

    changes = {**SOLVED, "tensorboard": True, "save_every": 1e-6}
    settings = small(two_parts, epochs=9, lr=1e-9, ema=0.0, early_stop=1, **changes)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop_module, "write_state", killed)
        train(settings, tmp_path / "run")
    for file in (
        tmp_path / "run/tensorboard"
    ).iterdir():  # read in the order of names: by the second, then by processes
        file.rename(file.with_name("events.out.tfevents.1000000000.first"))
    assert resume(tmp_path / "run").finished
    epochs = position(tmp_path / "run")[0]
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [str(epoch) for epoch in range(epochs + 1)]
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val/loss")] == list(range(epochs + 1))
    assert f"Ended after epoch {epochs} of 9" in (tmp_path / "run" / "report.html").read_text()


def test_a_resumed_run_knows_when_it_last_improved(two_parts, tmp_path, monkeypatch):
    settings = small(two_parts, epochs=12, early_stop=3, lr=1e-9, ema=0.0)
    train(settings, tmp_path / "whole")
    whole = read_state(tmp_path / "whole")["train_state"]
    with monkeypatch.context() as patch:
        signal_in_step(patch, 4 * (whole["best_trained_epoch"] + 1) + 2, signal.SIGINT)
        assert not train(settings, tmp_path / "run").finished
    assert resume(tmp_path / "run").finished
    resumed = read_state(tmp_path / "run")["train_state"]
    assert (
        (resumed["epoch"], resumed["best_trained_epoch"])
        == (whole["epoch"], whole["best_trained_epoch"])
        != (12, 12)
    )


def test_a_run_goes_on_in_as_many_batches_an_epoch_as_it_began_with(
    two_parts, tmp_path, monkeypatch
):
    """A last batch that two processes can't share, one process would take."""
    signal_in_step(monkeypatch, 2, signal.SIGINT)
    assert not train(small(two_parts), tmp_path / "run").finished
    state = read_state(tmp_path / "run")
    write_state(tmp_path / "run", {**state, "batches": state["batches"] - 1})
    with pytest.raises(TrainingError, match="4 batches now, and had 3 when"):
        resume(tmp_path / "run")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_signal_to_all_processes_of_a_run_is_the_first_ones_to_answer(
    two_parts, tmp_path, one_thread
):
    """As a batch system stops a job: decoding processes must not end before the last batches."""

    def in_group(folder: Path, settings: TrainSettings) -> None:
        os.setpgid(0, 0)
        in_process(folder, settings)

    settings = small(two_parts, cache="off", epochs=500, save_every=1e-6)
    process = multiprocessing.get_context("fork").Process(
        target=in_group, args=(tmp_path / "run", settings)
    )
    process.start()
    wait_for(lambda: position(tmp_path / "run") >= (1, 0), process)
    os.killpg(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 130


def test_a_run_goes_on_with_as_many_threads_as_it_began_with(
    two_parts, tmp_path, monkeypatch, one_thread
):
    signal_in_step(monkeypatch, 2, signal.SIGINT)
    assert not train(small(two_parts), tmp_path / "run").finished
    plain, threads = Learner.step, []

    def step(self, *arguments):
        threads.append(torch.get_num_threads())
        plain(self, *arguments)

    monkeypatch.setattr(Learner, "step", step)
    torch.set_num_threads(2)
    assert resume(tmp_path / "run").finished
    assert set(threads) == {1} and torch.get_num_threads() == 2


def test_what_the_head_was_in_doubt_of_is_in_a_resumed_runs_report(
    two_parts, tmp_path, monkeypatch
):
    monkeypatch.setattr(  # any label that is not predicted
        label_issues,
        "_log_odds",
        lambda logits, labels: np.where(logits.argmax(1) == labels, -1, 1),
    )
    doubtful = two_parts / "train/ash/doubtful.png"
    shutil.copy(
        next((two_parts / "train/brick").iterdir()), doubtful
    )  # in its own class, too, where there is no doubt
    run = tmp_path / "run"
    settings = small(two_parts, **SOLVED)
    signal_in_step(monkeypatch, 2, signal.SIGINT)
    assert not train(settings, run).finished
    told = []
    monkeypatch.setattr(
        "edgetl.training.engine.finalize.write_report", lambda _, data: told.append(data)
    )
    assert resume(run).finished
    assert doubtful in [photo.path for photo, _, _ in told[0].label_issues]


def test_what_was_noted_before_an_interruption_is_in_the_report_once(
    two_parts, tmp_path, monkeypatch
):
    (two_parts / "train/ash/broken.jpg").write_bytes(b"no photo")
    run = tmp_path / "run"
    signal_in_step(monkeypatch, 2, signal.SIGINT)
    assert not train(small(two_parts), run).finished
    state = read_state(run)
    assert any("broken.jpg" in note for note in state["notes"])
    write_state(run, {**state, "notes": [*state["notes"], "Said only once."]})
    assert resume(run).finished
    report = (run / "report.html").read_text()
    assert report.count("Said only once.") == report.count("broken.jpg") == 1


def test_the_report_counts_what_earlier_parts_took(two_parts, tmp_path, monkeypatch):
    run = tmp_path / "run"
    signal_in_step(monkeypatch, 2, signal.SIGINT)
    assert not train(small(two_parts), run).finished
    state = read_state(run)
    write_state(run, {**state, "train_state": {**state["train_state"], "seconds": 7200.0}})
    assert resume(run).finished
    assert "2 h 0 min" in (run / "report.html").read_text()


def test_what_is_wrong_with_the_folder_is_said_as_it_is(tmp_path):
    """torch says that it wrote less than it was to write, whatever the reason."""
    with pytest.raises(CheckpointError, match="No such file or directory"):
        write_state(tmp_path / "gone", {"tensor": torch.zeros(3)})


def test_a_run_whose_folder_may_not_be_written_any_more_does_not_go_on(
    two_parts, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGINT)
        assert not train(small(two_parts), tmp_path / "run").finished
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def read_only(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", read_only)
    monkeypatch.setattr(
        "edgetl.training.engine.resumed_run.find_photos",
        lambda *_: pytest.fail("said before the photos are looked at"),
    )
    with pytest.raises(CheckpointError, match="Read-only file system"):
        resume(tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_max_time_counts_what_earlier_parts_took(two_parts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGINT)
        assert not train(small(two_parts, epochs=50, max_time=60), tmp_path / "run").finished
    state = {key: value for key, value in read_state(tmp_path / "run").items() if key != "schema"}
    state["train_state"]["seconds"] = 3600.0
    write_state(tmp_path / "run", state)
    assert resume(tmp_path / "run").finished
    assert position(tmp_path / "run") == (1, 0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_folder_is_free_when_the_run_is_gone_though_who_decodes_for_it_is_not(tmp_path):
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()
    with lock_run_folder(tmp_path):
        child = fork.Process(target=lambda: (begun.set(), time.sleep(60)))
        child.start()
        assert begun.wait(30)
    with lock_run_folder(tmp_path):
        child.kill()
        child.join()
