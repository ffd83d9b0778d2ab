"""What a strategy freezes stays the same bit for bit: parameters and batch-norm statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgetl.training.config.recipes import resolve
from edgetl.training.models.backbones import build
from edgetl.training.models.trainable import Trainable
from edgetl.training.optim.optimizers import make_optimizer


def trained(strategy: str, blocks: int = 1, **options: bool):
    """(state before, state after a few steps of training, backbone)."""
    torch.manual_seed(0)
    backbone = build("timm/test_resnet", 3, weights="none")
    before = {key: value.clone() for key, value in backbone.module.state_dict().items()}
    trainable = Trainable(backbone, strategy, blocks, **options)
    optimizer = torch.optim.AdamW(trainable.parameter_groups(0.01, 0.05, 0.8))
    for _ in range(2):
        trainable.train()
        backbone.module(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return before, backbone.module.state_dict(), backbone


def changed(before, after):
    return {key for key in before if not torch.equal(before[key], after[key])}


def test_features_changes_only_the_head():
    before, after, _ = trained("features")
    assert changed(before, after) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("count", [1, 2])
def test_last_blocks_changes_the_head_and_those_blocks_statistics_included(count):
    before, after, backbone = trained("last-blocks", count)
    allowed = (*tuple(f"{path}." for block in backbone.blocks[-count:] for path in block), "fc.")
    differing = changed(before, after)
    assert {key for key in before if key.startswith(allowed)} == differing
    assert any("running_mean" in key for key in differing)


def test_full_changes_everything():
    before, after, _ = trained("full")
    assert changed(before, after) == set(before)


def test_pretrained_statistics_are_kept_while_everything_is_trained():
    before, after, _ = trained("full", norm_statistics=False)
    kept = {
        key
        for key in before
        if key.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert kept and set(before) - changed(before, after) == kept


def test_frozen_dropout_is_off_and_trained_dropout_on():
    backbone = build("vit_b_16", 2, weights="none")
    Trainable(backbone, "last-blocks", 1).train()
    modes = [layer.training for layer in backbone.module.encoder.layers]
    assert modes == [False] * 11 + [True]
    assert not backbone.module.encoder.training


def test_rates_fall_with_depth_and_vectors_are_not_decayed():
    backbone = build("timm/test_vit", 2, weights="none")
    groups = Trainable(backbone, "full", 0).parameter_groups(1.0, 0.05, 0.5**7)
    rate_of = {
        id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    assert len(rate_of) == len(list(backbone.module.parameters()))
    module = backbone.module
    assert rate_of[id(module.head.weight)] == (1.0, 0.05)
    assert rate_of[id(module.head.bias)] == (1.0, 0.0)
    assert rate_of[id(module.blocks[5].mlp.fc1.weight)] == pytest.approx((0.5, 0.05))
    assert rate_of[id(module.blocks[4].mlp.fc1.weight)] == pytest.approx((0.25, 0.05))
    assert rate_of[id(module.pos_embed)] == pytest.approx((0.5**7, 0.05))


def test_scales_with_axes_of_one_are_vectors():
    backbone = build("convnext_tiny", 2, weights="none")
    groups = Trainable(backbone, "full", 0).parameter_groups(1.0, 0.05, 1.0)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    scales = [p for name, p in backbone.module.named_parameters() if name.endswith("layer_scale")]
    assert len(scales) == 18 and scales[0].dim() == 3
    assert decayed == {id(p) for p in backbone.module.parameters() if p.squeeze().dim() > 1}


def test_a_first_step_that_overflows_leaves_nothing_behind(monkeypatch):
    """As fp16 begins on a GPU: fused SGD, whose first steps the scaler passes over."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # memory that nobody wrote then holds NaN
    try:
        parameter = torch.nn.Parameter(torch.ones(3))
        settings = resolve(
            Path("data"), {"strategy": "full", "optimizer": "sgd", "lr": 0.5}, cuda=False
        )
        optimizer = make_optimizer(settings, [{"params": [parameter]}], torch.device("cuda"))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        for gradient in (float("inf"), 1.0, 1.0):
            scaler.scale((parameter * gradient).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    finally:
        torch.use_deterministic_algorithms(before)
    momentum = settings.momentum
    assert parameter.tolist() == pytest.approx([1 - 0.5 * (1 + 1 + momentum)] * 3)
