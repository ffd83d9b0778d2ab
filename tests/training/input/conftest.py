"""Photos of many kinds to decode."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.photo_samples import assorted_photos

from edgetl.data.image_folder import Sample


@pytest.fixture
def photos(tmp_path: Path) -> list[Sample]:
    """Seven samples; the last two can't be read."""
    return assorted_photos(tmp_path)
