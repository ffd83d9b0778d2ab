"""Which learning rate is suggested for a curve of losses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.training_runs import context_of, small

from edgetl.errors import TrainingError
from edgetl.training.engine.lr_finder import half_fallen, try_rates

RATES = np.geomspace(1e-6, 1, 61).tolist()


@pytest.mark.parametrize("where", [1e-4, 1e-3, 1e-2])
def test_the_rate_in_the_middle_of_the_slope(where: float) -> None:
    losses = 2 - np.tanh(2 * np.log10(np.asarray(RATES) / where))
    noise = np.random.default_rng(0).normal(0, 0.03, len(RATES))
    rising = np.where(np.asarray(RATES) > 30 * where, 5.0, 0.0)
    assert half_fallen(RATES, (losses + noise + rising).tolist()) == pytest.approx(where, rel=0.5)


def test_a_loss_that_wavers_or_only_rises_suggests_nothing() -> None:
    wavering = 0.33 + np.random.default_rng(0).normal(0, 0.01, len(RATES))
    wavering[:5] += np.linspace(0.2, 0, 5)  # as a running mean of few begins
    assert half_fallen(RATES, wavering.tolist()) is None
    assert half_fallen(RATES, np.linspace(1, 2, 61).tolist()) is None
    with pytest.raises(TrainingError, match="diverged at once"):
        half_fallen(RATES[:2], [1.0, 5.0])


class Exploding:
    """A learner whose loss falls, until the rate is above 0.01."""

    def __init__(self) -> None:
        self.sums, self.rate, self.steps = torch.zeros(3), 0.0, 0

    def train_mode(self) -> None:
        pass

    def set_lr(self, rate: float) -> None:
        self.rate = rate

    def step(self, *_: object) -> None:
        self.steps += 1
        self.sums += torch.tensor([4 * (1e6 if self.rate > 0.01 else 1 / self.steps), 0.0, 4.0])


def test_rates_above_the_one_that_breaks_the_loss_are_not_tried(tmp_path: Path) -> None:
    learner = Exploding()
    sampler = SimpleNamespace(steps=5, shards=lambda *_: None, of_step=lambda *_: (1, 4))
    setup = SimpleNamespace(
        sampler=sampler, loader=SimpleNamespace(batches=lambda _: (nothing for nothing in ()))
    )
    rates, losses = try_rates(context_of(small(tmp_path, accumulate=1), tmp_path), setup, learner)  # type: ignore[arg-type]
    assert 0.005 < max(rates) <= 0.01 and max(losses) <= 1
    assert learner.steps == len(rates) + 1
