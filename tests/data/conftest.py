"""A short search for an assignment of groups, for tests in which there is none."""

from __future__ import annotations

import pytest

from edgetl.data import group_split


@pytest.fixture
def few_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after a hundredth of the moves."""
    monkeypatch.setattr(group_split, "_MAX_MOVES", group_split._MAX_MOVES // 100)
