"""The training loss: torch's, with weights of photos, not of what smoothing adds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from edgetl.training.optim.losses import photo_losses

WEIGHTS = torch.tensor([0.5, 1.0, 4.0])
LOGITS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 3


def test_without_weights_it_is_torchs():
    ours = photo_losses(LOGITS, LABELS, None, 0.1).sum()
    torch.testing.assert_close(
        ours, F.cross_entropy(LOGITS, LABELS, reduction="sum", label_smoothing=0.1)
    )


def test_without_smoothing_weights_are_torchs_too():
    torch.testing.assert_close(
        photo_losses(LOGITS, LABELS, WEIGHTS, 0.0),
        F.cross_entropy(LOGITS, LABELS, WEIGHTS, reduction="none"),
    )
    mixed = 0.7 * F.one_hot(LABELS, 3) + 0.3 * F.one_hot(LABELS.roll(1), 3)
    torch.testing.assert_close(
        photo_losses(LOGITS, mixed, WEIGHTS, 0.0),
        F.cross_entropy(LOGITS, mixed, WEIGHTS, reduction="none"),
    )


def test_whole_and_mixed_targets_are_one_formula():
    whole, mixed = (
        photo_losses(LOGITS, targets, WEIGHTS, 0.1)
        for targets in (LABELS, F.one_hot(LABELS, 3).float())
    )
    torch.testing.assert_close(whole, mixed)


@pytest.mark.parametrize("ratio", [1, 5, 100])
def test_weights_change_no_photos_best_answer(ratio):
    """For one photo the least loss is at its smoothed target, however rare the other class."""
    weights = torch.tensor([1.0, float(ratio)])
    chances = torch.linspace(0.005, 0.995, 199)
    logits = torch.stack([chances, 1 - chances], 1).log()
    losses = photo_losses(logits, torch.zeros(199, dtype=torch.long), weights, 0.1)
    assert chances[losses.argmin()] == pytest.approx(0.95, abs=0.006)
