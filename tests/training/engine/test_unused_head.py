"""A classifier in a file of weights is never replaced without a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.training_runs import Notebook, features_of, small

from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.training.engine.run_backbone import build_backbone, note_on_weights
from edgetl.training.models.backbones import build
from edgetl.training.models.checkpoint import Trained, save

NAME = "timm/small_backbone"
CLASSES = ("ash", "brick")


def notes(settings, path: Path) -> list[str]:
    settings, notebook = replace(settings, weights=str(path)), Notebook()
    note_on_weights(build_backbone(settings, CLASSES), settings, notebook)
    return notebook.notes


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_said_that_a_classifier_is_not_used(tmp_path, classes):
    path = tmp_path / "weights.pth"
    torch.save(build(NAME, classes, weights="none").module.state_dict(), path)
    (note,) = notes(features_of(tmp_path), path)
    assert f"The classifier in {path}, for {classes} classes, is not used" in note
    assert ("edgetl import" in note) == (classes == 2)  # the other could not classify these photos


def test_nothing_is_said_where_training_starts_from_it_or_there_is_none(tmp_path):
    state = build(NAME, 2, weights="none").module.state_dict()
    torch.save(state, tmp_path / "weights.pth")
    assert notes(small(tmp_path, warm_head=False), tmp_path / "weights.pth") == []
    headless = {name: value for name, value in state.items() if not name.startswith("fc.")}
    torch.save(headless, tmp_path / "headless.pth")
    assert notes(features_of(tmp_path), tmp_path / "headless.pth") == []


@pytest.mark.parametrize(("labels", "said"), [(CLASSES, 0), (("ash", "oak"), 1)])
def test_a_run_with_the_same_labels_goes_on_without_a_note(tmp_path, labels, said):
    backbone = build(NAME, 2, weights="none")
    save(
        Trained(backbone.module.eval(), ModelCard(labels, backbone.spec, NAME)),
        tmp_path / "best.safetensors",
    )
    found = notes(features_of(tmp_path), tmp_path / "best.safetensors")
    assert len(found) == said
    assert "edgetl import" not in "".join(found)  # which refuses a run
