"""A run replaces an earlier one: not by accident, not too early, and completely."""

from __future__ import annotations

import signal
import sys

import pytest
import torch
from helpers.training_runs import features_of, small, train

from edgetl.errors import CheckpointError, DataError, MissingDependencyError
from edgetl.training.config.run_folder import BEST, LAST, METRICS, metrics_belong
from edgetl.training.engine import epochs
from edgetl.training.engine import finalize as finalize_module
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.resumed_run import resume
from edgetl.training.engine.run_backbone import build_backbone
from edgetl.training.models import checkpoint


def test_an_existing_run_is_not_overwritten_by_accident(two_parts, tmp_path):
    train(small(two_parts, epochs=1), tmp_path / "run")
    before = (tmp_path / "run/best.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="holds a run already"):
        train(small(two_parts, epochs=1, seed=5), tmp_path / "run")
    assert (tmp_path / "run/best.safetensors").read_bytes() == before
    (tmp_path / "run/notes.txt").write_text("mine")
    train(small(two_parts, epochs=1, seed=5), tmp_path / "run", overwrite=True)
    assert (tmp_path / "run/best.safetensors").read_bytes() != before
    assert (tmp_path / "run/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("strategy", ["full", "features"])
def test_of_an_earlier_run_nothing_is_left_when_another_took_its_place(
    two_parts, tmp_path, monkeypatch, strategy
):
    run = tmp_path / "run"
    train(small(two_parts, epochs=1, tensorboard=True), run)
    for name in (
        ".best.safetensors.3",
        "..best.safetensors.3.123.part",
        ".last.pt.123.part",
        ".pixels-here-7",
    ):
        (run / name).write_bytes(b"of a run that was killed")
    if strategy == "features":
        assert train(features_of(two_parts), run, overwrite=True).finished
        files = {"best.safetensors", "metrics.json", "report.html", "validation.csv"}
        assert {path.name for path in run.iterdir()} - {"doubtful.csv"} == files
    else:
        monkeypatch.setattr(Learner, "step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(small(two_parts, epochs=1), run, overwrite=True)
        assert {path.name for path in run.iterdir()} == {"last.pt"}


@pytest.mark.parametrize("strategy", ["full", "features"])
def test_an_existing_run_is_there_until_another_can_take_its_place(two_parts, tmp_path, strategy):
    settings = small(two_parts, epochs=1) if strategy == "full" else features_of(two_parts)
    run = tmp_path / "run"
    train(settings, run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    (two_parts / "val/ash/broken.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        train(settings, run, overwrite=True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize("strategy", ["full", "features"])
def test_a_full_disk_leaves_an_earlier_run_as_it_was(two_parts, tmp_path, monkeypatch, strategy):
    settings = small(two_parts, epochs=1) if strategy == "full" else features_of(two_parts)
    run = tmp_path / "run"
    train(settings, run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for module in ("engine.train_state", "models.checkpoint"):
        monkeypatch.setattr(f"edgetl.training.{module}.write_atomically", full)
    with pytest.raises(CheckpointError, match="no space"):
        train(settings, run, overwrite=True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def full(*_):
    raise CheckpointError("There is no space left.")


def test_a_missing_tensorboard_is_missed_while_an_earlier_run_is_still_there(
    two_parts, tmp_path, monkeypatch
):
    train(small(two_parts, epochs=1), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"edgetl\[tensorboard\]"):
        train(small(two_parts, epochs=1, tensorboard=True), tmp_path / "run", overwrite=True)
    assert checkpoint.load(tmp_path / "run").card.labels == ("ash", "brick")


@pytest.mark.parametrize("strategy", ["full", "features"])
def test_ctrl_c_while_the_report_is_written_changes_nothing(
    two_parts, tmp_path, monkeypatch, strategy
):
    plain = finalize_module.write_report

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return plain(*arguments)

    monkeypatch.setattr(finalize_module, "write_report", interrupted)
    settings = small(two_parts, epochs=1) if strategy == "full" else features_of(two_parts)
    assert train(settings, tmp_path / "run").finished
    assert {"report.html", "metrics.json"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_a_run_that_is_killed_while_it_deletes_an_earlier_one_can_be_resumed(
    two_parts, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    run.mkdir()
    for name in (BEST, LAST, METRICS):
        (run / name).write_bytes(b"{}")

    def killed(folder, *, but):
        (folder / BEST).unlink()
        raise ZeroDivisionError

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(epochs, "clear", killed)
        train(small(two_parts, epochs=1), run, overwrite=True)
    assert (run / METRICS).exists()  # of the earlier run
    with pytest.raises(CheckpointError, match="holds a run already") as refused:
        train(small(two_parts, epochs=1), run)
    assert f"--resume {run}" in str(refused.value.hint)
    assert resume(run).finished
    assert metrics_belong(run, checkpoint.load(run).card.to_dict())


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_metrics_that_say_nothing_count_as_those_of_the_weights(tmp_path, content):
    (tmp_path / METRICS).write_text(content)
    assert metrics_belong(tmp_path, {"metrics": {"photos": 1}, "temperature": 1.0})


def test_a_head_for_other_classes_is_not_taken_over_however_many_they_are(two_parts, tmp_path):
    train(small(two_parts, epochs=1), tmp_path / "run")
    weights = tmp_path / "run/best.safetensors"
    head = checkpoint.load(weights).network.fc.weight
    settings = small(two_parts, weights=str(weights))
    same, other = (
        build_backbone(settings, names).module.fc.weight
        for names in (("ash", "brick"), ("brick", "clover"))
    )
    assert torch.equal(same, head) and not torch.equal(other, head)
    settings = small(two_parts, weights="none")
    assert torch.equal(other, build_backbone(settings, ("brick", "clover")).module.fc.weight)
