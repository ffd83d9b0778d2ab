"""``edgetl.training.engine.train_run.train``: the command's options as keyword arguments."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.training_runs import Notebook, signal_in_step

from edgetl.data.image_folder import scan
from edgetl.data.photo_digests import pack
from edgetl.errors import CheckpointError, DataError, TrainingError
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine import train_run
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.engine.train_run import train
from edgetl.training.models import checkpoint
from edgetl.training.torch_env import distributed

TINY = {"backbone": "timm/small_backbone", "weights": "none", "device": "cpu", "workers": 1}
EPOCHS = {**TINY, "strategy": "full", "image_size": 32, "batch_size": 4, "warm_head": False}


def test_only_a_head_is_trained_on_a_cpu_and_the_metrics_are_those_of_the_file(two_parts, tmp_path):
    steps = []
    result = train(
        str(two_parts),
        tmp_path / "run",
        feature_cache="off",
        progress=lambda *step: steps.append(step),
        **TINY,
    )
    assert result.finished and result.folder == tmp_path / "run"
    assert (result.settings.strategy, result.settings.optimizer) == ("features", "solver")
    assert result.metrics == json.loads((tmp_path / "run/metrics.json").read_text())
    assert ("Solving the head", 0, 0) in steps and ("Writing the report", 0, 0) in steps
    folders = scan(two_parts)
    trained_on = pack(sample.digest for sample in folders.train + folders.val)
    assert checkpoint.load(result.folder).photos == trained_on


def test_epochs_are_a_step_of_their_own_and_a_listener_receives_more(
    two_parts, tmp_path, monkeypatch
):
    monkeypatch.setattr("edgetl.training.engine.loop._REPORT_SECONDS", 0.0)
    steps, notebook = [], Notebook()
    train(
        two_parts, tmp_path / "one", epochs=2, progress=lambda *step: steps.append(step), **EPOCHS
    )
    assert ("Epoch 2/2", 1, 4) in steps
    train(two_parts, tmp_path / "other", epochs=1, progress=notebook, **EPOCHS)
    assert [row["epoch"] for row in notebook.rows] == [1]


def test_an_interrupted_run_is_resumed_where_its_photos_are_now(two_parts, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGINT)
        stopped = train(two_parts, run, epochs=1, **EPOCHS)
    assert not stopped.finished and stopped.metrics == {}
    moved = two_parts.rename(tmp_path / "moved")
    result = train(moved, resume=str(run), device="cpu")
    assert result.finished and result.settings.data == str(moved)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("data", "out"), {"epoch": 3}, "unexpected option 'epoch'. Did you mean 'epochs'"),
        (("data", "out"), {"zzz": 3}, "unexpected option 'zzz'"),
        (("data",), {}, "needs data and out, or resume"),
        ((), {}, "needs data and out, or resume"),
        ((), {"resume": "run", "epochs": 3, "overwrite": True}, "leave out epochs, overwrite"),
        (("data", "out"), {"resume": "run"}, "leave out out"),
    ],
)
def test_arguments_that_do_not_belong_together_are_a_type_error(arguments, options, message):
    with pytest.raises(TypeError, match=message):
        train(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "everything"}, "--strategy is 'everything'"),
        ({"strategy": ["full"]}, "--strategy"),
        ({"optimizer": {}}, "--optimizer"),
        ({"weights": 3}, "--weights is 3; it takes text"),
        ({"scale": (1.0,)}, "--scale"),
        ({"epochs": 3, "device": "cpu"}, "no effect where the head is solved for"),
        ({"optimizer": "solver", "strategy": "full"}, "fits the head only"),
        ({"val_fraction": 0.5, "device": "cpu"}, "no effect where there is a folder val"),
    ],
)
def test_options_that_can_not_be_used_are_a_training_error(two_parts, tmp_path, options, message):
    with pytest.raises(TrainingError, match=message):
        train(two_parts, tmp_path / "run", **options)


def test_folders_that_can_not_be_used_are_errors(two_parts, tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        train(tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(CheckpointError, match="lies inside the folder of the photos"):
        train(two_parts, two_parts / "run")
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(resume=tmp_path)


@pytest.mark.parametrize(("gpu", "strategy"), [(True, "full"), (False, "features")])
def test_the_strategy_is_resolved_as_the_command_does(
    two_parts, tmp_path, monkeypatch, gpu, strategy
):
    found = torch.device("cuda" if gpu else "cpu")
    monkeypatch.setattr(distributed, "choose_device", lambda name: found)
    settings, folders = train_run.resolve_run(
        two_parts, tmp_path / "run", {}, train_run.as_listener(None)
    )
    assert settings.strategy == strategy and len(folders.classes) == 2


def test_neither_the_import_nor_a_wrong_call_loads_torch(two_parts, tmp_path):
    program = f"""
import sys
from edgetl.errors import EdgetlError
from edgetl.training.engine.train_run import train
for options in ({{"epochs": -1}}, {{"class_weights": True, "balanced": True}}):
    try:
        train({str(two_parts)!r}, "run", **options)
    except EdgetlError:
        continue
    sys.exit("no error")
sys.exit("torch" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", program], cwd=Path(tmp_path), check=False)
    assert found.returncode == 0


def test_a_finished_run_shows_its_report_in_a_notebook(tmp_path):
    settings = TrainSettings(data="/photos")
    done = TrainResult(tmp_path, True, {}, settings)
    assert done._repr_html_() is None
    (tmp_path / "report.html").write_text("<!doctype html><h1>花</h1>", encoding="utf-8")
    assert "&lt;h1&gt;花" in (done._repr_html_() or "")
    assert TrainResult(tmp_path, False, {}, settings)._repr_html_() is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_options_that_do_nothing_on_this_device_are_refused_before_the_photos_are_listed(
    two_parts, tmp_path, monkeypatch, device
):
    monkeypatch.setattr(distributed, "choose_device", lambda name: torch.device(device))
    monkeypatch.setattr(train_run, "find_photos", lambda *_: pytest.fail("listed"))
    options = {"epochs": 3} if device == "cpu" else {"optimizer": "solver"}
    with pytest.raises(TrainingError, match=r"no effect|fits the head only"):
        train(two_parts, tmp_path / "run", **options)
