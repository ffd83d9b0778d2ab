"""The kept weights fit the saved state, wherever a run is killed, and are its own."""

from __future__ import annotations

import shutil
import signal

import pytest
from helpers.training_runs import SOLVED, features_of, signal_in_step, small, train

from edgetl.errors import CheckpointError, TrainingError
from edgetl.training.config.run_folder import BEST, HISTORY, LAST, promote_candidate
from edgetl.training.engine import loop as loop_module
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.resumed_run import resume
from edgetl.training.engine.train_state import read_state, write_state
from edgetl.training.evaluation.validation import Scores
from edgetl.training.models import checkpoint


@pytest.mark.parametrize("where", ["before", "after", "settled"])
def test_kept_weights_are_those_that_the_saved_state_knows_of_wherever_a_run_is_killed(
    two_parts, tmp_path, monkeypatch, where
):
    """Killed after a better epoch: before the state was saved, after it, and after all of it."""
    run, settings = (
        tmp_path / "run",
        small(two_parts, epochs=3, ema=0.9, mixup=0.3, optimizer="sgd", lr=0.05, save_every=1e-6),
    )
    train(settings, tmp_path / "whole")
    plain_write, plain_promote = loop_module.write_state, loop_module.promote_candidate

    def write(folder, state):
        better = state["train_state"]["best_epoch"] == 2
        if better and where == "before":
            raise KeyboardInterrupt
        plain_write(folder, state)
        if better and where == "after":
            raise KeyboardInterrupt

    def promote_candidate(folder, what):
        plain_promote(folder, what)
        if what == "2":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop_module, "write_state", write)
        patch.setattr(loop_module, "promote_candidate", promote_candidate)
        train(settings, run)
    expected = {"before": [1, 1], "after": [2, 1], "settled": [2, 2]}[where]
    assert [
        read_state(run)["train_state"]["best_epoch"],
        checkpoint.load(run).card.metrics["epoch"],
    ] == expected

    def stop(*_):
        known = read_state(run)["train_state"]["best_epoch"]
        assert checkpoint.load(run).card.metrics["epoch"] == known == expected[0]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("edgetl.training.engine.resumed_run.find_photos", stop)
        resume(run)
    assert resume(run).finished
    assert (run / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()
    assert not [path for path in run.iterdir() if path.name.startswith(".best")]


@pytest.mark.parametrize("saved", [True, False])
def test_half_way_weights_are_in_step_too(two_parts, tmp_path, monkeypatch, saved):
    """Killed before or after what knows of them was saved."""
    run, settings = tmp_path / "run", small(two_parts, **SOLVED, lr=1e-6, ema=0.0)
    monkeypatch.setattr(
        Scores, "better_than", lambda *_: True
    )  # so that the last ones that are judged are kept: half-way
    train(settings, tmp_path / "whole")
    assert checkpoint.load(tmp_path / "whole").card.metrics["midway"]
    plain = loop_module.write_state

    def write(folder, state):
        ended = state["train_state"]["midway"]
        if saved or not ended:
            plain(folder, state)
        if ended:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop_module, "write_state", write)
        train(settings, run)
    assert resume(run).finished
    assert (run / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_weights_that_nothing_knows_of_go(tmp_path):
    for name in (
        ".best.safetensors.2",
        ".best.safetensors.3",
        "..best.safetensors.4.123.part",
        "best.safetensors",
    ):
        (tmp_path / name).write_text(name)
    promote_candidate(tmp_path, "3")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "best.safetensors": ".best.safetensors.3"
    }


def test_what_an_earlier_run_left_goes_also_when_that_was_interrupted(
    two_parts, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    train(small(two_parts, epochs=1), run)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("edgetl.training.engine.epochs.clear", lambda *_, **__: 1 / 0)
        train(small(two_parts, epochs=1, seed=1), run, overwrite=True)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Learner, "step", lambda *_: 1 / 0)
        resume(run)
    assert {path.name for path in run.iterdir()} == {LAST}


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_kept_weights_that_are_lost_are_missed_before_training_goes_on(
    two_parts, tmp_path, monkeypatch, damage
):
    run = tmp_path / "run"
    signal_in_step(monkeypatch, 6, signal.SIGINT)
    assert not train(small(two_parts), run).finished
    if damage == "gone":
        (run / BEST).unlink()
    else:
        (run / BEST).write_bytes((run / BEST).read_bytes()[:-1] + b"x")
    monkeypatch.setattr(Learner, "step", lambda *_: pytest.fail("it trained"))
    with pytest.raises(CheckpointError, match=BEST):
        resume(run)


@pytest.mark.parametrize("other", ["epoch", "run", "settings"])
def test_weights_that_are_not_those_that_were_kept_are_refused(
    two_parts, tmp_path, monkeypatch, other
):
    run = tmp_path / "run"
    if other == "run":
        (two_parts / "train/ash/000.png").rename(tmp_path / "aside.png")
        train(small(two_parts, epochs=1), tmp_path / "other")
        (tmp_path / "aside.png").rename(two_parts / "train/ash/000.png")
    with monkeypatch.context() as patch:
        signal_in_step(patch, 6, signal.SIGINT)
        assert not train(small(two_parts), run).finished
    state = read_state(run)
    if other == "epoch":
        write_state(run, {**state, "train_state": {**state["train_state"], "best_epoch": 0}})
    elif other == "settings":
        write_state(run, {**state, "settings": {**state["settings"], "seed": 1}})
    else:
        shutil.copy(tmp_path / "other" / BEST, run / BEST)
    with pytest.raises(CheckpointError, match="is not the one that this run has kept"):
        resume(run)


@pytest.mark.parametrize("step", ["checkpoint.save", "clear"])
def test_an_interrupted_run_that_another_did_not_come_to_replace_goes_on(
    two_parts, tmp_path, monkeypatch, step
):
    """A run of the head alone should replace an interrupted one, and was killed at its end."""
    run, settings = tmp_path / "run", small(two_parts, **SOLVED, lr=1e-9, ema=0.0)
    train(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGINT)
        assert not train(settings, run).finished
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(f"edgetl.training.engine.finalize.{step}", lambda *_, **__: 1 / 0)
        train(features_of(two_parts), run, overwrite=True)
    assert resume(run).finished
    assert (run / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_weights_that_were_kept_before_the_photos_moved_know_where_they_are_now(
    two_parts, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    signal_in_step(monkeypatch, 6, signal.SIGINT)
    assert not train(small(two_parts, lr=1e-9, ema=0.0), run).finished
    before = checkpoint.load(run)
    moved = two_parts.rename(tmp_path / "moved")
    assert resume(run, data=moved).finished
    after = checkpoint.load(run)
    assert after.card.metrics["epoch"] == before.card.metrics["epoch"] == 1
    assert after.settings["data"] == str(moved)


def test_a_run_that_diverges_keeps_its_best_weights(two_parts, tmp_path, monkeypatch):
    """Also those of epochs since the last save; what is saved would only diverge again."""
    plain, steps = Learner.step, 0

    def step(self, *arguments):
        nonlocal steps
        plain(self, *arguments)
        if (steps := steps + 1) > 4:
            next(self._network.parameters()).data.fill_(float("nan"))

    run = tmp_path / "run"
    monkeypatch.setattr(Learner, "step", step)
    with pytest.raises(
        TrainingError, match=r"no longer a number\. The weights of epoch 1, the best before, are in"
    ) as raised:
        train(small(two_parts, epochs=3), run)
    assert "--lr" in raised.value.hint
    assert checkpoint.load(run).card.metrics["epoch"] == 1
    assert {path.name for path in run.iterdir()} == {BEST, HISTORY}
    with pytest.raises(CheckpointError, match="nothing to resume"):
        resume(run)
