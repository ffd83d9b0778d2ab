"""Photos cropped or whole: the training photos decide, and what they decided holds to the end."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.small_backbone import FIXED_BACKBONE, UNEVEN_BACKBONE
from helpers.training_runs import (
    Notebook,
    context_of,
    equal,
    signal_in_step,
    small,
    train,
    weights_of,
)
from PIL import Image
from torch import nn

from edgetl.data.image_folder import Sample, scan
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.recipes import resolve
from edgetl.training.engine.resumed_run import resume
from edgetl.training.engine.run_backbone import build_backbone
from edgetl.training.head import resize_choice
from edgetl.training.head.resize_choice import choose_resize
from edgetl.training.input import decoded_photos
from edgetl.training.models import checkpoint
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build

RED, BLUE, GREY = (200, 40, 40), (40, 40, 200), (120, 120, 120)
TALL = (64, 32)
WIDE = (32, 64)
NORMALIZATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def photos(root: Path, size: tuple[int, int], *, at_the_ends: bool) -> Path:
    """40 photos of ``size`` (height, width); the colour of their ends, or middle, tells the class.

    The other part has a colour that says nothing.
    """
    random = np.random.default_rng(0)
    height, width = size
    along = np.mgrid[0:height, 0:width][0 if height > width else 1]
    ends = np.abs(along + 0.5 - max(size) / 2) > max(size) / 4
    for part, count in (("train", 16), ("val", 4)):
        for label, colour in (("a", RED), ("b", BLUE)):
            for number in range(count):
                says_nothing = RED if random.random() < 0.5 else BLUE
                pixels = np.where(
                    (ends == at_the_ends)[..., None], colour, says_nothing
                ) + random.normal(0, 40, (*size, 3))
                path = root / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return root


def features(data: Path, **changes: Any) -> Any:
    given = {
        "backbone": "timm/test_resnet",
        "weights": "none",
        "strategy": "features",
        "feature_cache": "off",
    }
    return resolve(data, {**given, "device": "cpu", "workers": 1, **changes}, cuda=False)


@pytest.mark.parametrize(("size", "whole"), [(TALL, (224, 128)), (WIDE, (128, 224))])
def test_photos_that_differ_where_the_crop_does_not_look_are_seen_whole(tmp_path, size, whole):
    told = Notebook()
    outcome = train(
        features(photos(tmp_path / "data", size, at_the_ends=True)), tmp_path / "run", listener=told
    )
    assert outcome.metrics["accuracy"] == 1.0
    spec = checkpoint.load(tmp_path / "run").card.spec
    assert (spec.resize, spec.size, spec.crop) == ("squash", whole, None)
    assert [
        note
        for note in told.notes
        if f"seen whole, {whole[0]} pixels high and {whole[1]} wide" in note
    ]


def test_photos_that_differ_in_their_middle_stay_cropped(tmp_path):
    data = photos(tmp_path / "data", TALL, at_the_ends=False)
    train(features(data), tmp_path / "run")
    assert (
        checkpoint.load(tmp_path / "run").card.spec
        == build("timm/test_resnet", 2, weights="none").spec
    )


@pytest.mark.parametrize(
    ("changes", "spec"),
    [
        ({"resize": "published"}, ("shorter_side", 168, (160, 160))),
        ({"image_size": 96}, ("squash", (128, 64), None)),
        ({"resize": "squash", "image_size": 96}, ("squash", (96, 96), None)),
        ({"backbone": UNEVEN_BACKBONE, "image_size": 96}, ("squash", (96, 96), None)),
        ({"backbone": FIXED_BACKBONE}, ("squash", (64, 64), None)),  # it takes nothing else
    ],
)
def test_what_was_asked_for_and_what_the_network_takes_holds(tmp_path, changes, spec):
    settings = features(photos(tmp_path / "data", TALL, at_the_ends=True), **changes)
    backbone = build_backbone(settings, ("a", "b"))
    chosen, _ = choose_resize(context_of(settings, tmp_path), backbone, (), scan(settings.data))
    assert (chosen.spec.resize, chosen.spec.size, chosen.spec.crop) == spec


def test_where_a_crop_loses_nothing_there_is_nothing_to_choose(tmp_path, monkeypatch):
    monkeypatch.setattr(resize_choice, "compute_features", None)
    settings = features(photos(tmp_path / "data", (33, 32), at_the_ends=True), image_size=64)
    backbone = build_backbone(settings, ("ash", "brick"))
    backbone = replace(
        backbone, spec=PreprocessSpec("shorter_side", 64, "bicubic", (64, 64), *NORMALIZATION)
    )
    context, folders = context_of(settings, tmp_path), scan(settings.data)
    assert choose_resize(context, backbone, (), folders) == (backbone, None)


def test_no_photo_is_computed_twice_in_one_way(tmp_path, monkeypatch):
    seen: list[tuple[str, PreprocessSpec]] = []

    def resize(image: Image.Image, spec: PreprocessSpec) -> Any:
        seen.append((image.tobytes(), spec))
        return resized(image, spec)

    resized = decoded_photos.resize_image
    monkeypatch.setattr(decoded_photos, "resize_image", resize)
    monkeypatch.setattr(resize_choice, "_FEWEST", 10)
    monkeypatch.setattr(resize_choice, "_MOST", 20)
    monkeypatch.setattr(resize_choice, "_SURE", 100.0)
    train(features(photos(tmp_path / "data", TALL, at_the_ends=True)), tmp_path / "run")
    assert len(seen) == len(set(seen)) == 20 + 40


@pytest.mark.parametrize(
    ("counts", "decide"),
    [
        ([3000, 5], [[371, 5], [995, 5]]),
        ([10_000, 1], [[999, 1]]),
        ([2000, 2000], [[250, 250], [500, 500]]),
        ([100, 60], [[100, 60]]),
        ([1600, 800], [[200, 100], [667, 333]]),
        ([300, 150], [[200, 100], [300, 150]]),
        ([50] * 300, [[5] * 300]),
    ],
)
def test_some_photos_of_each_class_decide_and_more_if_they_are_unsure(counts, decide):
    random = np.random.default_rng(0)
    samples = [
        Sample(Path(f"{label}/{number}"), label, random.bytes(8).hex())
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    looks = resize_choice._growing_subsets(samples)
    assert len(looks) == len(decide)
    for some, expected, before in zip(looks, decide, [[], *looks], strict=False):
        np.testing.assert_allclose(np.bincount([sample.label for sample in some]), expected, atol=3)
        assert min(np.bincount([sample.label for sample in some])) >= min(5, *counts)
        assert some[: len(before)] == before
    assert resize_choice._growing_subsets(samples[::-1]) == looks


@pytest.mark.parametrize(
    ("gains", "whole"), [([2.5], True), ([-2.5], False), ([-1.5, 1.5], True), ([1.9, 0.5], False)]
)
def test_more_photos_are_asked_until_they_are_sure(gains, whole, tmp_path, monkeypatch):
    asked = []

    def improvement(features: Any, baseline: Any, labels: Any, classes: Any, **_: Any) -> float:
        assert len(features) == len(baseline) == len(labels)
        asked.append(len(labels))
        return gains[len(asked) - 1]

    monkeypatch.setattr(resize_choice, "improvement", improvement)
    monkeypatch.setattr(resize_choice, "_FEWEST", 10)
    settings = features(photos(tmp_path / "data", TALL, at_the_ends=True))
    backbone = build_backbone(settings, ("ash", "brick"))
    chosen, known = choose_resize(context_of(settings, tmp_path), backbone, (), scan(settings.data))
    assert asked == [10, 32][: len(gains)]
    assert (chosen.spec != backbone.spec) == whole
    assert known is not None and not known.unreadable


def test_a_network_that_only_counts_its_patches_gets_a_square():
    """18 × 32 of them are as many as 24 × 24, at places that mean something else."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Parameter(torch.zeros(24 * 24, 3))
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            return self.fc((F.avg_pool2d(x, 16).flatten(2).transpose(1, 2) + self.places).mean(1))

    spec = PreprocessSpec("shorter_side", 384, "bicubic", (384, 384), *NORMALIZATION)
    whole = resize_choice._uncropped(Backbone("counts", Counts(), spec, ("fc",), ()), [16 / 9])
    assert whole.size == (384, 384)


def test_what_is_said_of_a_way_that_is_not_taken_is_not_told(tmp_path):
    told = Notebook()
    data = photos(tmp_path / "data", TALL, at_the_ends=False)
    train(features(data, backbone=UNEVEN_BACKBONE, image_size=96), tmp_path / "run", listener=told)
    assert len(told.notes) == len(set(told.notes))


def test_a_run_over_epochs_begins_ends_and_goes_on_with_what_was_chosen(tmp_path, monkeypatch):
    data = photos(tmp_path / "data", TALL, at_the_ends=True)
    settings = small(data, warm_head=True, feature_cache="off", image_size=96)
    train(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        signal_in_step(patch, 3, signal.SIGINT)
        assert not train(settings, tmp_path / "parts").finished
    assert resume(tmp_path / "parts").finished
    assert checkpoint.load(tmp_path / "whole").card.spec.size == (128, 64)
    assert equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
