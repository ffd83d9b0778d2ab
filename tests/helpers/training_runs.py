"""Small fast trainings for tests: a tiny network, tiny photos, a few steps."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from edgetl.data.image_folder import ImageFolders
from edgetl.training.config.listener import Listener, RecordingListener
from edgetl.training.config.recipes import resolve
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.run_folder import BEST
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine import new_run
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.run_photos import find_photos
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.models.pretrained_weights import BESIDE
from edgetl.training.torch_env.distributed import Processes
from helpers.small_backbone import SMALL_BACKBONE

SMALL: dict[str, Any] = {
    "backbone": SMALL_BACKBONE,
    "weights": "none",
    "strategy": "full",
    "image_size": 32,
    "batch_size": 4,
    "epochs": 2,
    "warm_head": False,
    "workers": 1,
    "device": "cpu",
}

SOLVED: dict[str, Any] = {"warm_head": True, "resize": "published", "feature_cache": "off"}
"""Changes of ``small`` for a run that begins with a solved head, and tries no other resize."""


def small(data: Path, **changes: Any) -> TrainSettings:
    """Settings of a small run on ``data``."""
    return resolve(data, {**SMALL, **changes}, cuda=False)


def features_of(data: Path, backbone: str = SMALL_BACKBONE) -> TrainSettings:
    """Settings of a run that only fits the head, keeps no features and tries no other resize."""
    given = {
        "backbone": backbone,
        "weights": "none",
        "strategy": "features",
        "resize": "published",
        "feature_cache": "off",
        "device": "cpu",
    }
    return resolve(data, given, cuda=False)


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    listener: Listener | None = None,
    folders: ImageFolders | None = None,
    **others: Any,
) -> TrainResult:
    """A run with these settings on its photos, or on ``folders``."""
    folders = folders or find_photos(settings, listener or Listener())
    started = time.monotonic()
    return new_run.train(settings, folder, folders, started=started, listener=listener, **others)


def context_of(
    settings: TrainSettings, folder: Path, listener: Listener | None = None
) -> RunContext:
    """The context of a run in one process on the CPU."""
    recording = RecordingListener(listener or Listener())
    return RunContext(settings, folder, Processes(torch.device("cpu")), recording, time.monotonic())


def weights_of(run: Path) -> dict[str, Tensor]:
    """The kept weights of a run folder, and what lies beside them."""
    return load_file(run / BEST)


def network_weights(run: Path) -> dict[str, Tensor]:
    """The kept weights of a run folder, of the network alone."""
    return {name: value for name, value in weights_of(run).items() if BESIDE not in name}


class Notebook(Listener):
    """Records the notes and rows that it receives, and each table of photos."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.rows: list[dict] = []
        self.read: list[ImageFolders] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def epoch(self, row: dict) -> None:
        self.rows.append(row)

    def photos_read(self, folders: ImageFolders) -> None:
        self.read.append(folders)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def signal_in_step(monkeypatch: pytest.MonkeyPatch, number: int, kind: signal.Signals) -> None:
    """Raise the signal in the middle of step ``number``, counted over the run."""
    seen = 0
    plain = Learner.step

    def step(self, *arguments):
        nonlocal seen
        seen += 1
        if seen == number:
            signal.raise_signal(kind)
        plain(self, *arguments)

    monkeypatch.setattr(Learner, "step", step)
