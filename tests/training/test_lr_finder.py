"""Which learning rate is suggested for a curve of losses."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.errors import TrainingError
from edgetl.training.lr_finder import steepest

RATES = np.geomspace(1e-6, 1, 61).tolist()


@pytest.mark.parametrize("where", [1e-4, 1e-3, 1e-2])
def test_the_rate_at_which_the_loss_falls_fastest(where: float) -> None:
    losses = 2 - np.tanh(2 * np.log10(np.asarray(RATES) / where))
    assert steepest(RATES, losses.tolist()) == pytest.approx(where, rel=0.01)


def test_a_loss_that_only_rises_or_breaks_at_once_suggests_nothing() -> None:
    with pytest.raises(TrainingError, match="fell at no learning rate"):
        steepest(RATES, np.linspace(1, 2, 61).tolist())
    with pytest.raises(TrainingError, match="broke at once"):
        steepest(RATES[:2], [1.0, 5.0])
