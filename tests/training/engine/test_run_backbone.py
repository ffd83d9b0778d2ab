"""The backbone of a run is built for its photos' size, or refuses it at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.training_runs import small

from edgetl.errors import TrainingError
from edgetl.training.engine.run_backbone import build_backbone


def test_a_size_that_a_network_does_not_take_is_refused(tmp_path: Path) -> None:
    transformer = {"backbone": "timm/test_vit", "weights": "none"}  # of patches of 16 pixels
    assert build_backbone(small(tmp_path, **transformer, image_size=0), "ab").size == (160, 160)
    with pytest.raises(TrainingError, match="can't take photos of 100×100 pixels") as refused:
        build_backbone(small(tmp_path, **transformer, image_size=100), "ab")
    assert "Leave out --image-size; it takes 160×160" in str(refused.value.hint)
