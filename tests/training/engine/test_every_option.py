"""Every value that an option of ``edgetl train`` takes on the command line works from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.device_profiles import model, write
from helpers.training_runs import SMALL

from edgetl import EdgetlError, train
from edgetl.training.config.settings import OPTIONS, defaults

FULL = {**SMALL, "epochs": 1}
HEAD = {"backbone": "timm/small_backbone", "weights": "none", "device": "cpu"}
SOLVED: list[dict[str, Any]] = [
    {
        "backbone": "efficientnet_lite0",
        "weights": "auto",
        "strategy": "auto",
        "device": "cpu",
        "image_size": 32,
        "resize": "auto",
        "recipe": "default",
        "feature_cache": "off",
        "class_weights": True,
        "refit": True,
        "seed": 7,
    },
    {
        **HEAD,
        "device": "auto",
        "strategy": "features",
        "optimizer": "solver",
        "resize": "published",
        "feature_cache": "A FOLDER",
        "class_weights": False,
        "refit": False,
        "val_fraction": 0.3,
        "columns": "path=file,label=kind",
        "root": "A FOLDER",
    },
    {
        "weights": "none",
        "device": "cpu",
        "strategy": "features",
        "budget": "15ms",
        "max_size": "2MB",
        "profile": "A PROFILE",
        "candidates": "timm/small_backbone@32",
    },
]
TRAINED: list[dict[str, Any]] = [
    {
        **FULL,
        "optimizer": "sgd",
        "momentum": 0.5,
        "scheduler": "none",
        "precision": "auto",
        "cache": "auto",
        "feature_cache": "auto",
        "warm_head": True,
        "resize": "squash",
        "balanced": True,
        "mixup": 0.1,
        "norm_statistics": True,
        "tensorboard": True,
        "save_every": 1.0,
    },
    {
        **FULL,
        "strategy": "last-blocks",
        "blocks": 1,
        "optimizer": "adam",
        "scheduler": "step",
        "step_size": 1,
        "gamma": 0.5,
        "precision": "float32",
        "cache": "memory",
        "accumulate": 2,
        "clip": 1.0,
        "cutmix": 0.1,
        "flip": False,
        "max_time": 5.0,
        "tensorboard": False,
        "norm_statistics": False,
    },
    {
        **FULL,
        "optimizer": "adamw",
        "scheduler": "cosine",
        "precision": "bf16",
        "cache": "disk",
        "label_smoothing": 0.0,
        "early_stop": 1,
        "warmup": 0.0,
        "compile": True,
        "balanced": False,
        "rotation": 0.0,
        "scale": [0.5, 1.0],
        "ratio": (1, 1),
    },
    {
        **FULL,
        "scheduler": "one-cycle",
        "precision": "fp16",
        "cache": "off",
        "compile": False,
        "flip": True,
        "ema": 0.5,
    },
    {
        **FULL,
        "recipe": "classic",
        "scheduler": "plateau",
        "patience": 0,
        "lr": 0.01,
        "layer_decay": 0.5,
        "weight_decay": 0.01,
        "colour": 0.2,
    },
]


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile takes minutes, and is tested elsewhere."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)


@pytest.mark.parametrize("number", range(len(SOLVED) + len(TRAINED)))
def test_a_run_with_these_values(number: int, two_parts: Path, tmp_path: Path, uncompiled) -> None:
    options, data = dict((SOLVED + TRAINED)[number]), two_parts
    if "columns" in options:
        options |= {"feature_cache": tmp_path / "features", "root": two_parts}
        data = tmp_path / "photos.csv"
        photos = sorted(two_parts.rglob("*.png"))
        rows = [f"{photo.relative_to(two_parts)},{photo.parts[-2]}" for photo in photos]
        data.write_text("\n".join(["file,kind", *rows]))
    if "profile" in options:
        options["profile"] = write(tmp_path / "device.json", model(32, 10.0))
    try:
        result = train(data, tmp_path / "run", **options)
    except EdgetlError as error:  # what this machine lacks, such as fp16 on a CPU
        assert options.get("precision") == "fp16" or options.get("tensorboard"), error
        return
    assert result.finished
    assert result.metrics["photos"] > 0


def test_the_runs_have_every_value_of_every_option() -> None:
    given: dict[str, list[Any]] = {}
    for options in SOLVED + TRAINED:
        for name, value in options.items():
            given.setdefault(name, []).append(value)
    assert given.keys() == OPTIONS.keys()
    for name, option in OPTIONS.items():
        assert set(option.choices) <= set(given[name]) if option.choices else given[name]
        if isinstance(defaults()[name], bool):
            assert set(given[name]) == {True, False}, name
        if defaults()[name] == "auto":
            assert "auto" in given[name], name
