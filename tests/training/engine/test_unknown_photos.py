"""Unknown photos in a run: what is kept, and what the report and the metrics say."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.pictures import write_photo
from helpers.training_runs import (
    Notebook,
    equal,
    features_of,
    small,
    train,
    weights_of,
)

import edgetl
from edgetl.data.image_folder import scan
from edgetl.data.unknown_folder import unknown_photos
from edgetl.training.engine import unknown_photos as engine
from edgetl.training.head.held_out_answers import HeldOutAnswers
from edgetl.training.models import checkpoint
from edgetl.training.models.backbone import Backbone

COLOURS = {"ash": (40, 40, 40), "brick": (180, 60, 40), "cyan": (30, 180, 180)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of one colour each, with noise, and strange photos of another colour."""
    data = tmp_path_factory.mktemp("photos")
    for part, count, first in (("train", 8, 0), ("val", 8, 100)):
        for name, colour in COLOURS.items():
            for number in range(count):
                write_photo(data / part / name / f"{number}.png", colour, seed=first + number)
    for number in range(6):
        write_photo(data / "unknown" / f"{number}.png", (250, 250, 20), seed=200 + number)
    (data / "unknown/broken.jpg").write_bytes(b"no photo")
    shutil.copy(data / "train/ash/0.png", data / "unknown/known.png")
    return data


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    listener = Notebook()
    train(features_of(photos, "timm/test_resnet"), folder, listener=listener)
    return folder, listener


def test_the_checkpoint_holds_a_detector_and_scores_of_photos_that_fitted_nothing(run):
    kept = checkpoint.load(run[0])
    assert len(kept.held_out.labels) == len(kept.held_out.ood_score) == 48  # 24 + 24
    assert kept.held_out.embedding.shape[1] == kept.ood.projection.shape[1]
    assert kept.ood.projection.shape[0] == kept.network.fc.in_features


def test_the_metrics_and_the_report_say_how_well_unknown_photos_are_noticed(run):
    found = json.loads((run[0] / "metrics.json").read_text())["unknown"]
    assert found["photos"] == 48
    assert found["unknown_folder"]["photos"] == 6  # neither the broken nor the known one
    assert found["left_out_classes"]["photos"] == 48
    assert checkpoint.load(run[0]).card.metrics["unknown"] == found
    page = (run[0] / "report.html").read_text()
    assert "Unknown photos" in page
    assert "photos of unknown/" in page and "Each class in turn" in page
    assert '<span class="as right">' in page  # refused, but of the right class: no mistake
    assert any("1 of 7 photos in unknown/ can't be read" in note for note in run[1].notes)


def test_photos_of_unknown_change_nothing_that_is_learned(photos, run, tmp_path):
    shutil.copytree(photos, tmp_path / "data", ignore=shutil.ignore_patterns("[1-5].png"))
    for part in ("train", "val"):
        shutil.copytree(photos / part, tmp_path / "data" / part, dirs_exist_ok=True)
    listener = Notebook()
    train(features_of(tmp_path / "data", "timm/test_resnet"), tmp_path / "run", listener=listener)
    assert equal(weights_of(tmp_path / "run"), weights_of(run[0]))
    assert any(note.startswith("Of unknown/, 1 can be judged with") for note in listener.notes)
    assert not any(note.startswith("Of unknown/") for note in run[1].notes)


def test_trained_blocks_have_their_own_features_and_validation_photos_alone(photos, tmp_path):
    train(small(photos, epochs=1), tmp_path / "run")
    kept = checkpoint.load(tmp_path / "run")
    assert len(kept.held_out.ood_score) == 24
    assert np.isfinite(kept.held_out.ood_score).all()
    assert len(np.unique(kept.held_out.labels)) == 3


def test_the_time_for_a_photo_is_known_however_few_are_validated_on(photos, monkeypatch):
    now, computed = [0.0], set()

    def features(context, backbone, samples, **_):
        now[0] += len({sample.path for sample in samples} - computed)  # a second for each
        computed.update(sample.path for sample in samples)
        return SimpleNamespace(
            unreadable={},
            readable=list,
            of=lambda some: np.zeros((len(some), 2), np.float32),
        )

    monkeypatch.setattr(engine, "compute_features", features)
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for name, value in {"_LEAST_PHOTOS": 1, "_WARM_UP": 20, "_TIMED": 28}.items():
        monkeypatch.setattr(engine, name, value)
    folders, zeros = scan(photos), np.zeros((24, 3), np.float32)
    answers = HeldOutAnswers(np.arange(0), np.arange(24), np.zeros(24, np.int64), zeros)
    own, train, val = engine._seen_by(None, None, folders, answers, 60.0)
    # 28 seconds have gone; the others do for 16 photos of each kind.
    assert len(own.val) == len(train.values) == len(val.values) == 16


def test_where_no_time_is_left_fewer_photos_are_looked_at(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("edgetl.training.engine.unknown_photos._LEAST_PHOTOS", 20)
    settings = small(photos, epochs=1, max_time=0.0001)
    train(settings, tmp_path / "run")
    assert len(checkpoint.load(tmp_path / "run").held_out.ood_score) == 20


@pytest.fixture(scope="module")
def squeezed(photos, tmp_path_factory):
    """A run of a network whose classifier layer is a convolution."""
    folder = tmp_path_factory.mktemp("squeezed") / "run"
    train(small(photos, backbone="squeezenet1_1", epochs=1), folder)
    return folder


def test_of_a_classifier_that_is_a_convolution_the_means_over_places_are_looked_at(squeezed):
    kept = checkpoint.load(squeezed)
    assert kept.ood.mean.shape == (512,) and len(kept.held_out.ood_score) == 24
    found = kept.card.metrics["unknown"]
    assert found["unknown_folder"]["photos"] == 6 and found["left_out_classes"]["photos"] == 24


def test_its_export_answers_as_the_reference_does(squeezed, photos, tmp_path):
    edgetl.export(squeezed, tmp_path / "bundle", precision=["fp32", "int8"], max_accuracy_drop=100)
    checked = edgetl.check(tmp_path / "bundle", photos / "val", runtime="onnxruntime-cpu")
    assert checked.passed, checked.failures
    assert checked.runtimes[0].stage("ood_score").passed


def test_a_head_on_several_vectors_has_no_detector(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Backbone, "has_linear_head", False)
    listener = Notebook()
    train(small(photos, epochs=1), tmp_path / "run", listener=listener)
    kept = checkpoint.load(tmp_path / "run")
    assert kept.ood is None
    assert len(kept.held_out.logits) == 24
    assert not len(kept.held_out.ood_score)
    assert any("small_backbone is not one linear layer on a vector" in it for it in listener.notes)


def test_a_folder_named_unknown_is_a_class_where_it_always_was(photos, tmp_path):
    flat = tmp_path / "flat"
    shutil.copytree(photos / "train", flat)
    shutil.copytree(photos / "val/ash", flat / "unknown")
    found = scan(flat)
    assert "unknown" in found.classes
    assert any("unknown/ is a class here" in warning for warning in found.warnings)
    assert unknown_photos(found, flat) is None
    both = tmp_path / "both"
    shutil.copytree(photos, both)
    for part in ("train", "val"):
        shutil.copytree(photos / part / "ash", both / part / "unknown")
    found = scan(both)
    assert unknown_photos(found, both) is None
    assert any("left alone, since unknown is a class" in warning for warning in found.warnings)
