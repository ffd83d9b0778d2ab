"""Runs that train the last blocks from activations of the frozen ones."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from helpers.training_runs import (
    Notebook,
    context_of,
    equal,
    signal_in_step,
    small,
    train,
    weights_of,
)

from edgetl.errors import TrainingError
from edgetl.training.engine import frozen_part
from edgetl.training.engine.frozen_part import with_activations
from edgetl.training.engine.resumed_run import resume
from edgetl.training.engine.run_photos import find_photos
from edgetl.training.evaluation import validation
from edgetl.training.evaluation.validation import Validation
from edgetl.training.input import activations
from edgetl.training.input.augment import BatchAugmentation

BLOCKS = {"strategy": "last-blocks", "blocks": 2}


def test_without_chance_it_is_the_run_of_the_whole_network(two_parts, tmp_path, monkeypatch):
    every_time = np.full((16, 27), 0.3, np.float32)  # the random numbers of the augmentation
    monkeypatch.setattr(BatchAugmentation, "_draw_epoch", lambda *_: every_time)
    # Not adamw: it makes whole steps of gradients that are nothing but rounding.
    settings = small(two_parts, **BLOCKS, optimizer="sgd")
    monkeypatch.setattr(activations, "KEPT_TYPE", torch.float32)
    train(settings, tmp_path / "activations")
    with monkeypatch.context() as patch:
        patch.setattr(frozen_part, "find_split", lambda *_: None)
        train(settings, tmp_path / "whole")
    one, other = weights_of(tmp_path / "activations"), weights_of(tmp_path / "whole")
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-5) for name in one)


def test_what_is_resumed_ends_with_the_same_bits(two_parts, tmp_path, monkeypatch):
    settings = small(two_parts, **BLOCKS, epochs=3, batch_size=8)
    train(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        signal_in_step(patch, 4, signal.SIGINT)
        assert not train(settings, tmp_path / "parts").finished
    assert resume(tmp_path / "parts").finished
    assert equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))


@pytest.mark.parametrize(
    "changes",
    [{"strategy": "full"}, {**BLOCKS, "mixup": 0.3}, {**BLOCKS, "cache": "off"}],
)
def test_what_needs_pixels_gets_them(two_parts, tmp_path, monkeypatch, backbone, changes):
    monkeypatch.setattr(frozen_part, "find_split", None)  # not callable
    context = context_of(small(two_parts, **changes), tmp_path)
    assert with_activations(context, None, backbone, "photos", None) == ("photos", None)


def test_without_room_the_whole_network_is_run(two_parts, tmp_path, monkeypatch, backbone):
    monkeypatch.setattr(frozen_part, "keep_activations", lambda *_: None)
    context = context_of(small(two_parts, **BLOCKS), tmp_path)
    found = with_activations(
        context, find_photos(context.settings, Notebook()), backbone, "it", None
    )
    assert found == ("it", None)


def test_a_disk_that_fills_up_costs_only_the_activations(two_parts, tmp_path, monkeypatch):
    def full(*_):
        raise TrainingError("There is no room.")

    keep = Validation.keep_activations

    def filled(*given):
        monkeypatch.setattr(validation, "allocate", full)
        keep(*given)

    monkeypatch.setattr(Validation, "keep_activations", filled)
    settings = small(two_parts, **BLOCKS, epochs=1)
    assert train(settings, tmp_path / "run").finished
    assert validation.allocate is full
