"""Multi-level heads: their input, that copies and files keep it, and when they are chosen."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.training_runs import network_weights, small, train, weights_of
from torch import nn

from edgetl.errors import CheckpointError
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.training.config.recipes import resolve
from edgetl.training.config.run_folder import BEST
from edgetl.training.engine.resumed_run import resume
from edgetl.training.engine.train_state import read_state
from edgetl.training.evaluation.validation import Scores
from edgetl.training.head import head_preparation
from edgetl.training.head.head_preparation import softening
from edgetl.training.head.linear_head import fit_head, improvement
from edgetl.training.models import checkpoint
from edgetl.training.models.backbones import build
from edgetl.training.models.checkpoint import Trained
from edgetl.training.models.multi_level import (
    find_levels,
    with_levels,
)

RESNET = "timm/test_resnet"


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    made = build(RESNET, 3, weights="none")
    made.module.eval()
    return made


@pytest.fixture
def images():
    return torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("efficientnet_lite0", [("blocks.2.1", 40), ("blocks.4.2", 112), ("blocks.6.0", 320)]),
        ("resnet18", [("layer1.1", 64), ("layer2.1", 128), ("layer3.1", 256)]),
        ("mobilenet_v3_small", [("features.3", 24), ("features.8", 48), ("features.12", 576)]),
        (
            "densenet121",
            [
                ("features.transition1", 128),
                ("features.transition2", 256),
                ("features.transition3", 512),
            ],
        ),
        ("swin_t", []),
        ("timm/test_vit", []),
    ],
)
def test_levels_are_the_ends_of_the_last_stages(name, expected):
    assert list(find_levels(build(name, 2, weights="none"))) == expected


def test_the_head_is_fed_the_features_and_then_the_means_of_the_maps(backbone, images):
    levels = find_levels(backbone)
    maps = {}
    for path, _ in levels:
        backbone.module.get_submodule(path).register_forward_hook(
            lambda m, i, out, path=path: maps.update({path: out})
        )
    features = backbone.module.forward_head(
        backbone.module.forward_features(images), pre_logits=True
    )
    seen = torch.cat([features, *(maps[path].mean((2, 3)) for path, _ in levels)], 1)
    changed = with_levels(backbone, levels)
    linear = changed.module.get_submodule(changed.head)
    torch.testing.assert_close(changed.module(images), linear(seen))
    assert linear.in_features == seen.shape[1] == features.shape[1] + sum(c for _, c in levels)


def test_a_copy_feeds_its_own_head_and_nothing_is_kept_between_batches(backbone, images):
    original = with_levels(backbone, find_levels(backbone)).module
    twin = copy.deepcopy(original)
    expected = original(images)
    original.forward_features(2 * images)  # its maps are not the twin's business
    torch.testing.assert_close(twin(images), expected, rtol=0, atol=0)
    torch.testing.assert_close(original(images), expected, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_it_can_be_traced(backbone, images):
    module = with_levels(backbone, find_levels(backbone)).module
    traced = torch.jit.trace(module, images)
    torch.testing.assert_close(traced(-images), module(-images), rtol=0, atol=0)


def test_a_checkpoint_keeps_them(backbone, images, tmp_path):
    changed = with_levels(backbone, find_levels(backbone))
    card = ModelCard(("a", "b", "c"), backbone.spec, RESNET)
    checkpoint.save(Trained(changed.module, card, {}, changed.levels), tmp_path / BEST)
    loaded = checkpoint.load(tmp_path)
    assert loaded.levels == changed.levels
    torch.testing.assert_close(loaded.network(images), changed.module(images), rtol=0, atol=0)


def test_a_head_on_several_vectors_per_photo_has_no_levels(backbone):
    """As CLIP's ResNets have: their features can't be joined with means of maps."""

    class Tokens(nn.Module):
        def forward(self, x):
            return x.flatten(2).transpose(1, 2)

    backbone.module.global_pool = Tokens()
    assert find_levels(backbone) == ()


def test_a_level_that_the_network_lacks_is_an_error(backbone, tmp_path):
    checkpoint.save(
        Trained(
            backbone.module, ModelCard(("a", "b", "c"), backbone.spec, RESNET), {}, (("stem.9", 8),)
        ),
        tmp_path / BEST,
    )
    with pytest.raises(CheckpointError, match=r"has no layer stem\.9"):
        checkpoint.load(tmp_path)


def separable(informative: slice) -> tuple[np.ndarray, np.ndarray]:
    """600 photos of 40 features; those in ``informative`` tell three classes apart, partly."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 600)
    features = random.normal(size=(600, 40)).astype(np.float32)
    features[:, informative] += random.normal(size=(3, 40))[labels][:, informative] * 0.5
    return features, labels


@pytest.mark.parametrize(
    ("informative", "chosen"), [(slice(0, 20), 20), (slice(20, 40), 40), (slice(0, 40), 40)]
)
def test_cross_validation_decides_how_many_features_are_used(informative, chosen):
    features, labels = separable(informative)
    head = fit_head(features, labels, 3, widths=(20, 40))
    assert head.weight.shape == (3, chosen)
    np.testing.assert_array_equal(head.weight, fit_head(features[:, :chosen], labels, 3).weight)


@pytest.mark.parametrize(
    ("one", "other", "least", "most"), [(10, 40, 2, 30), (40, 10, -30, -2), (40, 40, 0, 0)]
)
def test_improvement_is_in_standard_errors_of_the_cross_validated_loss(one, other, least, most):
    features, labels = separable(slice(0, 40))
    assert least <= improvement(features[:, :other], features[:, :one], labels, 3) <= most
    assert (
        improvement(features[:12, :one], np.zeros_like(features[:12]), labels[:12], 3) == 0
    )  # too few to tell


@pytest.fixture
def always_levels(monkeypatch):
    """Cross-validation that always prefers the wide head."""

    def wide(*args, widths=(), **values):
        return fit_head(*args, **values)

    monkeypatch.setattr(head_preparation, "fit_head", wide)


@pytest.fixture
def last_kept(monkeypatch):
    """Whatever is judged last counts as the best: the weights half-way."""
    monkeypatch.setattr(Scores, "better_than", lambda *_: True)


def test_weights_half_way_are_kept_if_they_are_better(
    two_parts, tmp_path, always_levels, last_kept
):
    metrics = train(
        small(two_parts, warm_head=True, lr=0.01, feature_cache="off"), tmp_path / "run"
    ).metrics
    assert metrics["midway"]
    learner, kept = read_state(tmp_path / "run")["learner"], network_weights(tmp_path / "run")
    start, end = learner["interpolation"], learner["average"]["network"]
    assert not all(torch.equal(start[name], end[name]) for name in start)
    assert kept.keys() == start.keys()
    for name, value in kept.items():
        torch.testing.assert_close(
            value, (start[name] + end[name]) / 2 if value.is_floating_point() else end[name]
        )
    assert "Kept: the mean of the weights" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize(
    "given",
    [{"strategy": "features"}, {"strategy": "full", "epochs": 1, "lr": 1e-9, "image_size": 64}],
)
def test_a_run_begins_with_the_accuracy_of_the_multi_level_head(
    two_parts, tmp_path, always_levels, given
):
    settings = resolve(
        two_parts,
        {"backbone": RESNET, "weights": "none", "feature_cache": "off", **given},
        cuda=False,
    )
    metrics = train(settings, tmp_path / "run").metrics
    assert (metrics["accuracy"], metrics["epoch"], metrics["midway"]) == (1.0, 0, False)
    assert len(checkpoint.load(tmp_path / "run").levels) == 3


def test_a_head_for_smoothed_targets_begins_less_confident(two_parts, tmp_path, always_levels):
    changes = {"warm_head": True, "epochs": 1, "lr": 1e-12, "ema": 0.0, "feature_cache": "off"}
    for smoothing in (0.0, 0.2):
        train(small(two_parts, **changes, label_smoothing=smoothing), tmp_path / str(smoothing))
    solved, softer = (weights_of(tmp_path / name) for name in ("0.0", "0.2"))
    for name in (name for name in solved if ".linear." in name):
        ratio = solved[name].norm() / softer[name].norm()
        assert ratio > 1.2
        torch.testing.assert_close(solved[name], ratio * softer[name])


@pytest.mark.parametrize("class_weights", [None, [0.4, 2.0, 0.6]])
def test_the_heads_confidence_minimises_the_loss_of_training(class_weights):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(200, 3)).astype(np.float32), rng.integers(0, 3, 200)
    features[np.arange(200), labels] += 2
    logits, targets = torch.from_numpy(3 * features), torch.from_numpy(labels)
    weights = None if class_weights is None else torch.tensor(class_weights)
    temperature = softening(logits, targets, weights, 0.2)

    def loss_at(temperature: float) -> float:
        losses = F.cross_entropy(
            logits / temperature, targets, reduction="none", label_smoothing=0.2
        )
        if weights is not None:
            losses = losses * weights[targets]
        return float(losses.mean())

    assert temperature > 1.1
    assert loss_at(temperature) < min(loss_at(0.97 * temperature), loss_at(1.03 * temperature))


def test_an_interrupted_run_with_levels_resumes_with_the_same_bits(
    two_parts, tmp_path, always_levels, last_kept, monkeypatch
):
    settings = small(two_parts, warm_head=True, lr=0.01, feature_cache="off")
    train(settings, tmp_path / "whole")
    steps = iter(range(3))

    def killed(clock: object) -> bool:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return False

    with monkeypatch.context() as patch:
        patch.setattr("edgetl.training.engine.time_budget.TimeBudget.is_up", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path / "stopped")
    resume(tmp_path / "stopped")
    whole, stopped = weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped")
    assert whole.keys() == stopped.keys() and all(
        torch.equal(whole[key], stopped[key]) for key in whole
    )
