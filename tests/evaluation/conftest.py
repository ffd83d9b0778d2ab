"""A bundle of one matrix, and a test set that it gets partly right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import tiny_bundle
from helpers.pictures import photo

from edgetl import Predictor

LABELS = ("ant", "bee", "cicada <b>")
TestSet = Callable[..., Path]


@pytest.fixture(scope="session")
def insects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with three labels."""
    card = tiny_bundle.card(labels=LABELS)
    return tiny_bundle.write(tmp_path_factory.mktemp("insects") / "insects", card)


@pytest.fixture(scope="session")
def test_set(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty photos in the folders of their classes; every fifth is in another class's folder."""
    folder = tmp_path_factory.mktemp("test-set")
    predictor = Predictor(insects)
    for number in range(30):
        picture = photo(number)
        index = predictor(picture).index + (number % 5 == 0)
        place = folder / LABELS[index % len(LABELS)] / f"{number:02}.png"
        place.parent.mkdir(exist_ok=True)
        picture.save(place)
    return folder


@pytest.fixture(autouse=True)
def figures() -> None:
    """Draw them."""
