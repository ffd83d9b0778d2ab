"""Whole runs on tiny photos: what lands in the run folder, and that it is the same every time."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.pictures import COLOURS, write_photo
from helpers.small_backbone import DROPOUT_BACKBONE
from helpers.training_runs import (
    SOLVED,
    Notebook,
    context_of,
    equal,
    features_of,
    network_weights,
    small,
    train,
    weights_of,
)

from edgetl.data.image_folder import scan
from edgetl.data.photo_digests import pack, unpack
from edgetl.errors import CheckpointError, TrainingError
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import normalize, resize_image
from edgetl.training.config.recipes import resolve
from edgetl.training.config.run_folder import require_free, require_resumable
from edgetl.training.engine import finalize as finalize_module
from edgetl.training.engine import new_run
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.loop import Loop
from edgetl.training.engine.run_photos import warn_about
from edgetl.training.engine.run_start import check_machine
from edgetl.training.engine.time_budget import TimeBudget, Timer
from edgetl.training.engine.train_state import TrainState, read_state
from edgetl.training.evaluation.label_issues_table import read_label_issues
from edgetl.training.evaluation.run_records import PhotoResult, write_photo_tables
from edgetl.training.evaluation.validation import Scores
from edgetl.training.head import head_preparation
from edgetl.training.head.head_preparation import prepare_head
from edgetl.training.head.linear_head import fit_head
from edgetl.training.input.sampler import Sampler
from edgetl.training.models import checkpoint
from edgetl.training.models.backbones import build
from edgetl.training.torch_env.distributed import Processes


def test_a_run_leaves_weights_card_history_and_metrics(two_parts, tmp_path):
    run = tmp_path / "runs/one"
    outcome = train(small(two_parts), run)
    assert outcome.finished
    trained = checkpoint.load(run)
    folders = scan(two_parts)
    assert trained.card.labels == ("ash", "brick")
    assert trained.card.data == {"fingerprint": folders.fingerprint, "train": 16, "val": 9}
    assert trained.settings["data"] == str(two_parts.absolute())
    assert trained.settings["val_fraction"] == 0.2
    assert trained.card.spec.fixed_size == (32, 32)
    assert trained.card.promises.basis == "9 validation photos"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics == outcome.metrics
    classes = metrics.pop("classes")
    assert metrics.pop("temperature") == trained.card.temperature
    assert [(found["label"], found["photos"]) for found in classes] == list(
        zip(folders.classes, folders.val_counts, strict=True)
    )
    assert all(found["recall"] is None or 0 <= found["recall"] <= 1 for found in classes)
    assert metrics == dict(trained.card.metrics)
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    best = rows[int(metrics["epoch"]) - 1]
    assert float(best["val_accuracy"]) == pytest.approx(metrics["accuracy"])
    # At the temperature that was fitted, and added up in another order.
    assert 0 < metrics["loss"] <= float(best["val_loss"]) + 1e-7
    report = (run / "report.html").read_text()
    assert "ash" in report and "brick" in report
    statement = report.partition('<section id="statement">')[2].partition("</section>")[0]
    assert "9 validation photos" in statement and "answers that are right" in statement
    assert read_state(run)["train_state"]["finished"]
    assert {path.name for path in run.iterdir() if path.name.startswith(".")} == set()


def test_the_same_run_twice_gives_the_same_bits_and_another_seed_others(two_parts, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(small(two_parts, seed=seed, mixup=0.2, colour=0.3, ema=0.9), tmp_path / name)
    assert (tmp_path / "a/best.safetensors").read_bytes() == (
        tmp_path / "b/best.safetensors"
    ).read_bytes()
    assert not equal(weights_of(tmp_path / "a"), weights_of(tmp_path / "c"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"cache": "memory"}, {"cache": "disk"}),
        ({"cache": "memory", "workers": 1}, {"cache": "memory", "workers": 3}),
        ({"cache": "memory"}, {"cache": "off", "workers": 1}),
        ({"cache": "off", "workers": 1}, {"cache": "off", "workers": 3}),
        (
            {"cache": "memory", "backbone": DROPOUT_BACKBONE},
            {"cache": "off", "backbone": DROPOUT_BACKBONE},
        ),
    ],
)
@pytest.mark.parametrize("recipe", ["default", "classic"])
def test_when_where_and_by_how_many_photos_are_decoded_does_not_matter(
    two_parts, tmp_path, recipe, one, other
):
    train(small(two_parts, recipe=recipe, epochs=1, **one), tmp_path / "a")
    train(small(two_parts, recipe=recipe, epochs=1, **other), tmp_path / "b")
    assert equal(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))


def test_accumulated_batches_make_the_step_of_one_large_batch(two_parts, tmp_path):
    """On a network without batch norm, whose statistics do depend on the batch."""
    vit = {
        "backbone": "timm/test_vit",
        "image_size": 0,
        "epochs": 1,
        "optimizer": "sgd",
        "lr": 0.1,
        "ema": 0.0,
        "layer_decay": 1.0,
    }
    train(small(two_parts, **vit, batch_size=8, class_weights=True), tmp_path / "whole")
    train(
        small(two_parts, **vit, batch_size=4, accumulate=2, class_weights=True), tmp_path / "parts"
    )
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=1e-4, atol=1e-5)


def test_the_head_is_solved_by_default_with_a_cache_or_without(two_parts, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "unwanted"))
    given = {"backbone": "timm/small_backbone", "weights": "none", "workers": 1}
    outcomes = [
        train(
            resolve(two_parts, {**given, "feature_cache": where}, cuda=False),
            tmp_path / f"run{number}",
        )
        for number, where in enumerate([str(tmp_path / "cache"), str(tmp_path / "cache"), "off"])
    ]
    assert (
        outcomes[0].metrics["accuracy"] == 1.0
    )  # grey against red is easy, even on random features
    assert outcomes[0].metrics == outcomes[1].metrics == outcomes[2].metrics
    assert equal(weights_of(tmp_path / "run0"), weights_of(tmp_path / "run1"))
    assert equal(weights_of(tmp_path / "run0"), weights_of(tmp_path / "run2"))
    assert {p.shape[0] for p in checkpoint.load(tmp_path / "run0").network.fc.parameters()} == {2}
    assert list((tmp_path / "cache").rglob("*.npy")) and not (tmp_path / "unwanted/edgetl").exists()


def test_features_by_the_loop_leaves_the_backbone_alone(two_parts, tmp_path):
    train(small(two_parts, strategy="features", optimizer="sgd", lr=0.5, ema=0.9), tmp_path / "one")
    train(
        small(two_parts, strategy="features", optimizer="sgd", lr=0.1, ema=0.0), tmp_path / "other"
    )
    one, other = network_weights(tmp_path / "one"), network_weights(tmp_path / "other")
    assert {key for key in one if not torch.equal(one[key], other[key])} == {"fc.weight", "fc.bias"}


def test_training_learns(two_parts, tmp_path):
    notebook = Notebook()
    outcome = train(
        small(two_parts, epochs=8, lr=0.003, ema=0.0, layer_decay=1.0, label_smoothing=0.0),
        tmp_path / "run",
        listener=notebook,
    )
    assert outcome.metrics["accuracy"] >= 0.8
    assert notebook.rows[-1]["train_loss"] < notebook.rows[0]["train_loss"]


def test_the_history_holds_what_happened_in_each_epoch(two_parts, tmp_path, monkeypatch):
    """By hand: the mean of the epoch's own losses, and the rate of its last step."""
    notebook, losses, loss_of = Notebook(), [], Learner._loss

    def noted(self, batch):
        model, answers = self._model, []
        self._model = lambda images: answers.append(model(images)) or answers[-1]
        loss, self._model = loss_of(self, batch), model
        right = int((answers[0].argmax(1) == batch.labels).sum())
        losses.append((batch.shard.epoch, float(loss.detach()), len(batch.labels), right))
        return loss

    monkeypatch.setattr(Learner, "_loss", noted)
    settings = small(
        two_parts,
        epochs=3,
        lr=0.02,
        scheduler="step",
        step_size=1,
        gamma=0.1,
        warmup=0.0,
        layer_decay=1.0,
    )
    train(settings, tmp_path / "run", listener=notebook)
    for epoch, row in enumerate(notebook.rows):
        loss, photos, right = np.sum(
            [numbers for number, *numbers in losses if number == epoch], axis=0
        )
        assert row["train_loss"] == pytest.approx(loss / photos)
        assert row["train_accuracy"] == pytest.approx(right / photos)
    assert [row["lr"] for row in notebook.rows] == pytest.approx([0.02, 0.002, 0.0002])


def test_plateau_listens_to_the_validation_loss(two_parts, tmp_path, monkeypatch):
    worse, better = itertools.count(1), itertools.count(1)  # at the best temperature, and as it is
    monkeypatch.setattr(
        "edgetl.training.engine.loop.scores",
        lambda *_: Scores(0.5, 1.0 / next(better), float(next(worse))),
    )
    notebook = Notebook()
    settings = small(
        two_parts, epochs=4, lr=0.01, scheduler="plateau", patience=0, gamma=0.5, warmup=0.0
    )
    train(settings, tmp_path / "run", listener=notebook)
    assert [row["lr"] for row in notebook.rows] == pytest.approx([0.01, 0.01, 0.005, 0.0025])


def test_early_stop_waits_for_what_is_trained_to_have_its_chance(two_parts, tmp_path, monkeypatch):
    """A solved head is lost first: neither that nor an epoch of warm-up is a reason to stop."""
    accuracies = iter([0.9, 0.3, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6])
    monkeypatch.setattr(
        "edgetl.training.engine.loop.scores", lambda *_: Scores(next(accuracies), 1.0, 1.0)
    )
    notebook = Notebook()
    train(
        small(two_parts, epochs=9, early_stop=2, **SOLVED),
        tmp_path / "run",
        listener=notebook,
    )
    assert "Ended after epoch 5 of 9: no improvement since epoch 3." in notebook.notes


def test_early_stop_knows_a_gain_where_the_kept_weights_do(two_parts, tmp_path, monkeypatch):
    """Ever surer, so that the loss grows, and better at its best temperature."""
    found = iter([Scores(0.5, 1.0 + number, 1.0 - 0.1 * min(number, 3)) for number in range(9)])
    monkeypatch.setattr("edgetl.training.engine.loop.scores", lambda *_: next(found))
    notebook = Notebook()
    train(small(two_parts, epochs=9, early_stop=2, warmup=0.0), tmp_path / "run", listener=notebook)
    assert "Ended after epoch 6 of 9: no improvement since epoch 4." in notebook.notes
    assert read_state(tmp_path / "run")["train_state"]["best_epoch"] == 4


def test_early_stop_counts_from_where_the_warm_up_ends(two_parts, tmp_path, monkeypatch):
    """Which is after half of the run at most."""
    monkeypatch.setattr("edgetl.training.engine.loop.scores", lambda *_: Scores(0.5, 1.0, 1.0))
    notebook = Notebook()
    train(small(two_parts, epochs=6, early_stop=2, warmup=6.0), tmp_path / "run", listener=notebook)
    assert "Ended after epoch 5 of 6: no improvement since epoch 1." in notebook.notes


def test_early_stop_does_not_count_the_warm_up(two_parts, tmp_path, monkeypatch):
    accuracies = itertools.count(90, -1)
    monkeypatch.setattr(
        "edgetl.training.engine.loop.scores", lambda *_: Scores(next(accuracies) / 100, 1.0, 1.0)
    )
    notebook = Notebook()
    train(small(two_parts, epochs=9, early_stop=2, warmup=2.5), tmp_path / "run", listener=notebook)
    assert "Ended after epoch 5 of 9: no improvement since epoch 1." in notebook.notes


def test_the_solved_head_is_the_row_before_the_first_epoch(two_parts, tmp_path):
    notebook, run = Notebook(), tmp_path / "run"
    train(small(two_parts, epochs=1, **SOLVED), run, listener=notebook)
    head, first = csv.DictReader((run / "history.csv").read_text().splitlines())
    assert (head["epoch"], head["lr"], head["train_loss"], head["images_per_second"]) == (
        "0",
        "",
        "",
        "",
    )
    assert 0 <= float(head["val_accuracy"]) <= 1 and float(head["val_loss"]) > 0
    assert first["epoch"] == "1" and [row["epoch"] for row in notebook.rows] == [0, 1]


def test_the_time_budget_counts_from_the_start_to_the_limit(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("edgetl.training.engine.time_budget.time.monotonic", lambda: now[0])
    budget, timer = TimeBudget(started=950.0, max_time=2.0), Timer(69.0)
    assert not timer.is_due()
    now[0] = 1069.0
    assert budget.seconds() == 119.0 and not budget.is_up() and timer.is_due()
    assert budget.share_since(50.0) == pytest.approx(69 / 70) and budget.seconds_left() == 1.0
    now[0] = 1070.0
    assert budget.is_up() and budget.share_since(50.0) == 1.0
    timer.restart()
    assert not timer.is_due()
    assert budget.is_limited and not TimeBudget(started=950.0, max_time=0.0).is_limited


def test_images_per_second_count_the_photos_of_the_epochs_steps(two_parts, tmp_path, monkeypatch):
    """10 photos in batches of 4, two to a step: the last of three batches has two photos."""
    now = [1000.0]
    monkeypatch.setattr("edgetl.training.engine.loop.time.monotonic", lambda: now[0])
    setup = SimpleNamespace(sampler=Sampler([0] * 10, 4, 0, accumulate=2))
    loop = Loop(context_of(small(two_parts), tmp_path), setup, None, {}, TrainState())
    now[0] = 1069.0
    for step, photos in ((1, 8), (2, 10)):
        loop.state.step = step
        assert loop.images_per_second() == pytest.approx(photos / 69)


def test_every_photo_judged_on_and_every_doubtful_one_is_in_a_table(two_parts, tmp_path):
    shutil.copy(two_parts / "train/ash/000.png", two_parts / "train/brick/wrong, label.png")
    run = tmp_path / "run"
    outcome = train(features_of(two_parts), run)
    rows = list(csv.DictReader((run / "validation.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["file", "label", "answer", "confidence", "sha256"]
    folders = scan(two_parts)
    assert {row["sha256"] for row in rows} == {sample.digest for sample in folders.val}
    assert {row["file"]: row["label"] for row in rows} == {
        sample.path.relative_to(two_parts).as_posix(): folders.classes[sample.label]
        for sample in folders.val
    }
    right = [row["answer"] == row["label"] for row in rows]
    assert sum(right) / len(right) == pytest.approx(outcome.metrics["accuracy"])
    assert right == sorted(right)  # mistakes first
    sure = [float(row["confidence"]) for row in rows]
    wrong = right.count(False)
    assert sure == sorted(sure[:wrong], reverse=True) + sorted(sure[wrong:])
    doubtful = list(csv.DictReader((run / "doubtful.csv").read_text(encoding="utf-8").splitlines()))
    assert doubtful and all(
        (two_parts / row["file"]).is_file() and row["label"] != row["answer"] for row in doubtful
    )
    assert list(doubtful[0]) == [*rows[0], "label_error"]
    assert all(0.5 < float(row["label_error"]) <= 1 for row in doubtful)
    found = read_label_issues(run)
    assert (found.source.folder, found.labels) == (two_parts, folders.classes)
    assert [photo.file for photo in found.photos] == [row["file"] for row in doubtful]


def test_a_table_holds_names_of_any_kind_and_is_not_there_without_a_row(tmp_path):
    odd = [
        PhotoResult(name, 'la"bel', "answer, other", 0.5, "ab")
        for name in ("a\rb.jpg", "a\nb.jpg", "a,b.jpg", "\udcff.jpg")
    ]
    write_photo_tables(tmp_path, odd, [])
    with (tmp_path / "validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a\rb.jpg", "a\nb.jpg", "a,b.jpg", "\\udcff.jpg"]
    assert not (tmp_path / "doubtful.csv").exists()


def test_weights_of_another_backbone_are_told_from_damaged_ones(two_parts, tmp_path):
    train(features_of(two_parts), tmp_path / "run")
    with pytest.raises(
        TrainingError, match="holds weights of timm/small_backbone, not of resnet18"
    ) as refused:
        train(
            replace(
                features_of(two_parts, "resnet18"), weights=str(tmp_path / "run/best.safetensors")
            ),
            tmp_path / "other",
        )
    assert refused.value.hint == "Add --backbone timm/small_backbone."
    settings = replace(features_of(two_parts), weights=str(tmp_path / "run/best.safetensors"))
    assert train(settings, tmp_path / "other").finished


def test_a_backbone_that_is_random_and_stays_so_is_told(two_parts, tmp_path):
    for settings, told in ((features_of(two_parts), True), (small(two_parts, epochs=1), False)):
        notebook = Notebook()
        train(settings, tmp_path / settings.strategy, listener=notebook)
        assert any("The backbone is random and stays so" in note for note in notebook.notes) == told


def test_early_stop_and_max_time_end_a_run_that_is_finished(two_parts, tmp_path):
    notebook = Notebook()
    train(
        small(two_parts, epochs=30, lr=1e-9, early_stop=2, ema=0.0),
        tmp_path / "stalled",
        listener=notebook,
    )
    state = read_state(tmp_path / "stalled")["train_state"]
    assert (
        f"Ended after epoch {state['epoch']} of 30: "
        f"no improvement since epoch {state['best_epoch']}." in notebook.notes
    )
    assert state["finished"] and state["epoch"] < 30
    assert state["epoch"] - state["best_epoch"] == 2
    train(small(two_parts, epochs=1000, max_time=1e-6), tmp_path / "short", listener=notebook)
    assert read_state(tmp_path / "short")["train_state"]["epoch"] == 1
    assert "Ended in epoch 1 of 1000: the time was up." in notebook.notes
    assert [note for note in notebook.notes if note.startswith("Preparing took")]


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "timm/levit_128s"])
def test_a_head_that_can_not_be_solved_for_is_named(two_parts, tmp_path, backbone):
    with pytest.raises(
        TrainingError, match=f"head of {backbone} is not one linear layer"
    ) as refused:
        train(features_of(two_parts, backbone), tmp_path / "run")
    assert "--strategy last-blocks or full" in str(refused.value.hint)


def test_the_figures_and_the_report_are_of_what_is_exported(two_parts, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(finalize_module, "write_report", lambda _, data: told.append(data))
    monkeypatch.setattr(
        new_run, "prepare_head", lambda *_: heads.append(prepare_head(*_)) or heads[-1]
    )
    monkeypatch.setattr(finalize_module, "calibrate", lambda *_: 2.0)
    heads: list = []
    train(replace(features_of(two_parts), refit=False), tmp_path / "run")
    (report,), (head,) = told, [prepared.head for prepared in heads]
    trained, metrics = (
        checkpoint.load(tmp_path / "run"),
        json.loads((tmp_path / "run/metrics.json").read_text()),
    )
    assert metrics["refit"] is trained.card.metrics["refit"] is False
    samples = scan(two_parts).val
    pixels = torch.stack([decode(sample.path, trained.card.spec) for sample in samples])
    logits = trained.network(pixels).detach().double()
    targets = torch.tensor([sample.label for sample in samples])
    assert trained.card.temperature == 1.0  # cross-validation chose the scale
    loss = torch.nn.functional.cross_entropy(logits, targets)
    assert metrics["loss"] == pytest.approx(float(loss), abs=1e-3)
    assert metrics["accuracy"] == float((logits.argmax(1) == targets).double().mean())
    assert report.train_counts == [8, 8] and report.validated_on == "the folder val/"
    assert report.cross_validation is head.cross_validation is not None
    np.testing.assert_allclose(report.probabilities, logits.softmax(1), atol=1e-4)
    photos = scan(two_parts).train
    assert report.label_issues == [
        (photos[issue.photo], issue.predicted, issue.label_error) for issue in head.label_issues
    ]
    assert trained.card.promises.basis == (
        "9 validation photos and 16 training photos, answered by heads fitted without them"
    )
    held_out, accuracy = trained.held_out, trained.card.promises.statement[0]
    right = int((held_out.logits.argmax(1) == held_out.labels).sum())
    assert (accuracy.figure, accuracy.count, accuracy.photos) == ("accuracy", right, 25)


def test_at_last_the_head_is_fitted_to_the_validation_photos_too(two_parts, tmp_path, monkeypatch):
    """The figures stay those of the head before that; the recipe stays the same."""
    heads: list = []
    monkeypatch.setattr(
        head_preparation,
        "fit_head",
        lambda *_, **options: heads.append(fit_head(*_, **options)) or heads[-1],
    )
    folders = scan(two_parts)
    for name, refit in (("judged", False), ("refitted", True)):
        train(replace(features_of(two_parts), refit=refit), tmp_path / name)
    judged, refitted = (checkpoint.load(tmp_path / name) for name in ("judged", "refitted"))
    _, first, final = heads
    backbone = build("timm/small_backbone", 2, weights="none")
    assert final.recipe == first.recipe and final.cross_validation is None
    for trained, head in ((judged, first), (refitted, final)):
        weight = trained.network.get_submodule(backbone.head).weight
        np.testing.assert_array_equal(weight.detach().numpy(), head.weight)
    assert not np.array_equal(first.weight, final.weight)
    digests = {
        part: pack(photo.digest for photo in getattr(folders, part)) for part in ("train", "val")
    }
    assert unpack(judged.photos) == unpack(digests["train"])
    assert unpack(refitted.photos) == unpack(digests["train"]) | unpack(digests["val"])
    assert refitted.card.temperature == judged.card.temperature
    assert {**refitted.card.metrics, "refit": False} == judged.card.metrics
    for table in ("validation.csv", "doubtful.csv"):
        files = [tmp_path / name / table for name in ("judged", "refitted")]
        assert len({file.read_bytes() if file.exists() else b"" for file in files}) == 1
    assert "fitted once more" in (tmp_path / "refitted/report.html").read_text()
    assert "fitted once more" not in (tmp_path / "judged/report.html").read_text()


def test_of_a_folder_that_was_not_parted_the_report_tells_how_and_only_what_had_an_effect(
    two_parts, tmp_path, monkeypatch
):
    told = []
    monkeypatch.setattr(finalize_module, "write_report", lambda _, data: told.append(data))
    train(replace(features_of(two_parts / "train"), val_fraction=0.3), tmp_path / "run")
    assert told[0].validated_on == "25.0% of the photos, by their content"
    assert told[0].settings["optimizer"] == "solver" and "momentum" not in told[0].settings


def decode(path, spec):
    return torch.from_numpy(normalize(resize_image(read_image(path), spec)[None], spec)[0])


def test_uneven_classes_are_warned_of_unless_evened_out(tmp_path, write_photos):
    write_photos(tmp_path / "data/train", {"ash": 12, "brick": 3})
    write_photos(tmp_path / "data/val", {"ash": 2, "brick": 2}, first=50)
    for name, changes in {
        "plain": {},
        "weighted": {"class_weights": True},
        "balanced": {"balanced": True},
    }.items():
        notebook = Notebook()
        train(small(tmp_path / "data", epochs=1, **changes), tmp_path / name, listener=notebook)
        assert any("uneven" in note for note in notebook.notes) == (name == "plain")


@pytest.mark.parametrize(
    ("counts", "said"),
    [([8, 2], "4.0 times"), ([1500, 10], "150 times"), ([25000, 2], "12,500 times")],
)
def test_how_uneven_classes_are_is_told_as_a_person_would(counts, said):
    notebook = Notebook()
    folders: Any = SimpleNamespace(warnings=(), train_counts=counts, classes=("ash", "brick"))
    warn_about(folders, small(Path("photos")), notebook)
    assert f"Classes are uneven: {said} as many photos of ash as of brick." in notebook.notes[0]


@pytest.mark.parametrize("ask", [lambda folder: require_free(folder, False), require_resumable])
def test_a_folder_that_can_not_be_looked_at_is_an_error(ask):
    with pytest.raises(CheckpointError, match="can't be read"):
        ask(Path("x" * 300))


def test_a_loss_that_breaks_is_an_error_that_says_what_to_do(two_parts, tmp_path):
    with pytest.raises(TrainingError, match="smaller --lr"):
        train(
            small(two_parts, optimizer="sgd", lr=1e6, epochs=4, warmup=0.0, ema=0.0),
            tmp_path / "run",
        )


def test_a_folder_that_can_not_be_made_is_named(two_parts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/run"):
        train(small(two_parts), tmp_path / "file/run")


def test_bf16_and_one_cycle_and_clipping_run_on_the_cpu(two_parts, tmp_path):
    outcome = train(
        small(two_parts, precision="bf16", scheduler="one-cycle", clip=1.0, cutmix=1.0),
        tmp_path / "run",
    )
    assert 0 <= outcome.metrics["accuracy"] <= 1


def test_tensorboard_events_hold_every_epoch(two_parts, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small(two_parts, tensorboard=True), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    rows = list(csv.DictReader((tmp_path / "run/history.csv").read_text().splitlines()))
    tags = {
        "val/accuracy": "val_accuracy",
        "train/loss": "train_loss",
        "lr": "lr",
        "images_per_second": "images_per_second",
    }
    for tag, column in tags.items():
        told = [(event.step, event.value) for event in events.Scalars(tag)]
        assert told == [(int(row["epoch"]), pytest.approx(float(row[column]))) for row in rows]


@pytest.mark.parametrize(
    "changes",
    [
        {"balanced": True},
        {"class_weights": True},
        {"clip": 0.01},
        {"label_smoothing": 0.5},
        {"optimizer": "adam"},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"precision": "bf16"},
        {"layer_decay": 0.1},
        {"weight_decay": 0.9},
        {"ema": 0.5},
        {"norm_statistics": False},
        {"lr": 0.02},
        {"warmup": 0.0},
        {"flip": False},
        {"rotation": 0.0},
        {"scale": (0.2, 0.3)},
        {"ratio": (1.0, 1.0)},
        {"colour": 0.9},
        {"mixup": 1.0},
        {"cutmix": 1.0},
        {"accumulate": 2},
        {"strategy": "last-blocks"},
        {"seed": 1},
    ],
    ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_each_option_changes_what_is_learned(uneven_run, tmp_path, changes):
    data, before = uneven_run
    train(small(data, **{**EFFECTIVE, **changes}), tmp_path / "run")
    weights = state_weights(tmp_path / "run")
    assert not all(torch.equal(weights[name], before[name]) for name in before)


EFFECTIVE = {"epochs": 1, "lr": 0.01, "weight_decay": 0.1, "ema": 0.0, "layer_decay": 0.9}


def state_weights(run):
    """Those after the last step, averaged or not, as they would be judged."""
    learner = read_state(run)["learner"]
    return learner["average"]["network"] if learner["average"] else learner["network"]


@pytest.fixture(scope="module")
def uneven_run(tmp_path_factory):
    """(data of 6 + 3 photos, the weights after an epoch)."""
    folder = tmp_path_factory.mktemp("uneven")
    for part, counts in {"train": (6, 3), "val": (2, 2)}.items():
        for name, count in zip(COLOURS, counts, strict=False):
            for number in range(count):
                write_photo(
                    folder / "data" / part / name / f"{number}.png",
                    COLOURS[name],
                    number + 50 * (part == "val"),
                )
    train(small(folder / "data", **EFFECTIVE), folder / "run")
    return folder / "data", state_weights(folder / "run")


def test_a_run_folder_that_can_not_be_written_is_named_before_any_photo_is_decoded(
    two_parts, tmp_path, monkeypatch
):
    def touch(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.touch", touch)
    monkeypatch.setattr("edgetl.training.engine.new_run.prepare_training", None)
    with pytest.raises(CheckpointError, match="run can't be written: Permission denied"):
        train(small(two_parts), tmp_path / "run")


def test_a_run_folder_that_is_a_link_to_nothing_is_called_so(two_parts, tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="can't be created: it is a link to what is not"):
        train(small(two_parts), tmp_path / "run")


def test_the_average_is_what_is_judged_and_kept(two_parts, tmp_path):
    train(small(two_parts, epochs=1, ema=0.5, lr=0.05), tmp_path / "run")
    learner, kept = read_state(tmp_path / "run")["learner"], network_weights(tmp_path / "run")
    assert equal(kept, learner["average"]["network"])
    assert not equal(kept, learner["network"])


def test_a_batch_that_batch_norm_can_not_measure_is_an_error(two_parts, tmp_path):
    with pytest.raises(TrainingError, match="Batch norm can't measure a single photo"):
        # Whose last map of 32 pixels is a single one.
        settings = small(two_parts, backbone="timm/test_resnet", batch_size=1, norm_statistics=True)
        train(settings, tmp_path / "run")


def test_a_batch_that_is_smaller_than_the_number_of_processes_is_refused():
    with pytest.raises(TrainingError, match="A batch of 3 can't be split over 4 processes"):
        check_machine(
            small(Path("photos"), batch_size=3), Processes(torch.device("cpu"), world_size=4)
        )


def test_more_blocks_than_there_are_is_an_error_before_anything_is_done(
    two_parts, tmp_path, monkeypatch
):
    monkeypatch.setattr(new_run, "prepare_training", None)
    with pytest.raises(TrainingError, match="has 4 blocks, not 5"):
        train(small(two_parts, strategy="last-blocks", blocks=5), tmp_path / "run")
    assert not (tmp_path / "run").exists()
