"""After the head: whether to train the last blocks, how many, and what is said about it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.training_runs import Notebook, context_of, train
from safetensors.torch import save_file

from edgetl.training.config.recipes import resolve
from edgetl.training.config.run_folder import HISTORY, LAST, is_resumable
from edgetl.training.engine import blocks_plan
from edgetl.training.engine.blocks_plan import (
    BlocksPlan,
    BlockTimes,
    measure_blocks,
    plan_blocks,
    settings_after_head,
)
from edgetl.training.evaluation.validation import Scores
from edgetl.training.head import linear_head
from edgetl.training.models import checkpoint
from edgetl.training.models.backbones import build

TIMES = BlockTimes(forward=(0.004,) * 6 + (0.001,) * 12, training=3.0)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights: without pretrained ones nothing is decided."""
    save_file(
        build("timm/small_backbone", 2, weights="none").module.state_dict(),
        tmp_path / "w.safetensors",
    )
    return tmp_path / "w.safetensors"


def given(weights: Path | str, **changes):
    plain = {"backbone": "timm/small_backbone", "image_size": 32, "feature_cache": "off"}
    return {**plain, "weights": str(weights), "workers": 1, "device": "cpu", **changes}


def test_the_time_of_a_run_is_that_of_its_parts():
    # Four views through 12 blocks, and 12 epochs of the last six at three times their forward pass.
    expected = 100 * (4 * (6 * 0.004 + 6 * 0.001) + 12 * 3 * 6 * 0.001)
    assert TIMES.seconds(6, 12, 100) == pytest.approx(expected)
    assert TIMES.seconds(6, 2, 100) < expected / 3  # two epochs need two views


@pytest.mark.parametrize("seconds", [5, 25, 40, 80, 1000])
def test_the_plan_is_the_deepest_one_that_the_time_allows(seconds):
    plan = plan_blocks(TIMES, 100, seconds)
    if seconds == 5:
        assert plan is None
        return
    assert TIMES.seconds(plan.blocks, plan.epochs, 100) <= seconds
    assert 3 <= plan.blocks <= 12 and 6 <= plan.epochs <= 12
    deeper = plan.blocks + 1
    assert plan.blocks == 12 or TIMES.seconds(deeper, 6, 100) > 0.9 * seconds
    assert plan.epochs == 12 or TIMES.seconds(plan.blocks, plan.epochs + 1, 100) > 0.9 * seconds
    assert seconds < 1000 or plan == BlocksPlan(12, 12)


def test_blocks_are_timed_one_by_one(monkeypatch):
    backbone = build("timm/small_backbone", 2, weights="none")
    backbone = replace(backbone, spec=replace(backbone.spec, size=32, crop=(32, 32)))
    seconds = iter(range(1000))
    monkeypatch.setattr(blocks_plan.time, "monotonic", lambda: float(next(seconds)))
    times = measure_blocks(backbone)
    count = len(backbone.blocks)
    trained = count * 2 // 3
    assert times.forward == (1 / 2,) * count and times.training == (trained + 1) / trained
    assert all(value.grad is None for value in backbone.module.parameters())
    assert not any(module._forward_pre_hooks for module in backbone.module.modules())


def after_head(data, tmp_path, monkeypatch, accuracy, *, seconds=0.01, doubtful=0, **changes):
    """What is decided for a head of that accuracy on 400 photos, and what is said about it.

    doubtful  how many of its mistakes are doubtful labels
    """
    notebook = Notebook()
    settings = resolve(data, given("auto", **changes), cuda=False)
    found = SimpleNamespace(
        score=SimpleNamespace(accuracy=accuracy),
        losses=[0.0] * 400,
        photos=[0] * 400,
        label_issues=[None] * doubtful,
    )
    prepared = SimpleNamespace(
        backbone=None,
        head=SimpleNamespace(cross_validation=found if accuracy else None),
        folders=SimpleNamespace(train=[None] * 400),
    )
    times = BlockTimes((seconds,) * 18, 3.0)
    monkeypatch.setattr(blocks_plan, "measure_blocks", lambda backbone: times)
    context = context_of(settings, tmp_path / "a run", notebook)
    return settings_after_head(context, prepared), notebook.notes


def test_a_good_head_is_left_alone(two_parts, tmp_path, monkeypatch):
    for accuracy in (0.99, 0.965, None):  # the second is too close to 97 %, the last not known
        settings, notes = after_head(two_parts, tmp_path, monkeypatch, accuracy)
        assert settings is None and notes == []
    settings, (note,) = after_head(two_parts, tmp_path, monkeypatch, 0.99, max_time=5)
    assert settings is None and "needs no more" in note


def test_doubtful_labels_are_no_reason_to_train_more(two_parts, tmp_path, monkeypatch):
    for doubtful, notes in ((0, 1), (8, 1), (28, 0)):  # of 32 mistakes on 400 photos
        found = after_head(two_parts, tmp_path, monkeypatch, 0.92, doubtful=doubtful)
        assert len(found[1]) == notes


def test_the_command_that_may_do_better_is_named(two_parts, tmp_path, monkeypatch):
    settings, (note,) = after_head(two_parts, tmp_path, monkeypatch, 0.9, class_weights=True)
    assert settings is None and "cross-validation gives it 90.0%." in note
    needed = math.ceil(BlockTimes((0.01,) * 18, 3.0).seconds(9, 12, 400) / 0.9 / 60)
    assert f"edgetl train {two_parts} -o '{tmp_path}/a run' --overwrite" in note
    for option in ("--class-weights ", "--image-size 32 ", "--backbone timm/small_backbone "):
        assert option in note
    assert f"takes {needed} min" in note and note.endswith(f"--max-time {needed}")
    assert "--strategy" not in note


def test_a_time_limit_is_spent_on_the_last_blocks(two_parts, tmp_path, monkeypatch):
    settings, (note,) = after_head(two_parts, tmp_path, monkeypatch, 0.9, max_time=50)
    assert (settings.strategy, settings.optimizer) == ("last-blocks", "adamw")
    assert (settings.blocks, settings.epochs, settings.max_time) == (12, 12, 50)
    assert settings.lr > resolve(two_parts, {"strategy": "last-blocks"}, cuda=False).lr
    assert "the last 12 of 18 blocks are trained" in note
    settings, (note,) = after_head(two_parts, tmp_path, monkeypatch, 0.9, max_time=0.1)
    assert settings is None and "more than the 0.1 allowed, " in note and "--max-time" in note


@pytest.fixture
def short(monkeypatch):
    """No head is good enough, and two epochs are the most."""
    monkeypatch.setattr(blocks_plan, "_GOOD", 2.0)
    monkeypatch.setattr(blocks_plan, "_FEWEST_EPOCHS", 1)
    monkeypatch.setattr(blocks_plan, "_MOST_EPOCHS", 2)


@pytest.mark.parametrize("sees_levels", [False, True])
def test_a_run_goes_on_from_its_head(two_parts, tmp_path, monkeypatch, weights, short, sees_levels):
    monkeypatch.setattr(linear_head, "better_candidate", lambda *heads: heads[sees_levels])
    # Of weights that are as good, the last ones.
    monkeypatch.setattr(Scores, "better_than", lambda self, other: True)
    notebook = Notebook()
    settings = resolve(two_parts, given(weights, max_time=50), cuda=False)
    result = train(settings, tmp_path / "run", listener=notebook)
    assert result.finished and result.settings.strategy == "last-blocks"
    assert [row["epoch"] for row in notebook.rows] == [0, 1, 2]
    assert len(notebook.read) == 1  # though epochs decode the photos once more
    assert "refit" not in result.metrics
    assert bool(checkpoint.load(result.folder).levels) == sees_levels


def test_a_head_that_no_epoch_improves_is_the_one_of_a_run_without_epochs(
    two_parts, tmp_path, monkeypatch, weights, short
):
    monkeypatch.setattr(Scores, "better_than", lambda self, other: other is None)
    settings = resolve(two_parts, given(weights, max_time=50), cuda=False)
    tried = train(settings, tmp_path / "tried", listener=(notebook := Notebook()))
    assert [row["epoch"] for row in notebook.rows] == [0, 1, 2]
    assert any("No epoch did better" in note for note in notebook.notes)
    plain = train(resolve(two_parts, given(weights), cuda=False), tmp_path / "plain")
    assert tried.finished and tried.settings == settings
    assert tried.metrics == plain.metrics and tried.metrics["refit"]
    first, second = (checkpoint.load(result.folder) for result in (tried, plain))
    assert first.photos == second.photos
    for one, other in zip(
        first.network.state_dict().values(), second.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    # Nothing is left to resume, and the curves stay.
    assert not is_resumable(tried.folder) and not (tried.folder / LAST).exists()
    assert len((tried.folder / HISTORY).read_text().splitlines()) == 4


def test_a_run_ends_with_a_head_that_is_good(two_parts, tmp_path, weights):
    settings = resolve(two_parts, given(weights, max_time=50), cuda=False)
    result = train(settings, tmp_path / "run")
    assert result.finished and result.settings == settings and settings.strategy == "auto"
    assert result.metrics["epoch"] == 0
