"""The tests of reports draw their figures."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def figures() -> None:
    """Draw them."""
