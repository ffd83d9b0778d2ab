"""Runs whose heads are fitted with few penalties: fitting takes most of the time of a small run."""

from __future__ import annotations

import pytest

from edgetl.training.head import cross_validation


@pytest.fixture(autouse=True)
def few_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try three values of C. The tests of the head try all."""
    monkeypatch.setattr(cross_validation, "C_VALUES", (0.01, cross_validation.DEFAULT_C, 1.0))
