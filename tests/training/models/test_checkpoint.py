"""Checkpoints: everything needed to rebuild the network, in one file, written atomically."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgetl.errors import CheckpointError
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import BEST, LAST
from edgetl.training.models.backbones import build
from edgetl.training.models.checkpoint import Trained, load, save
from edgetl.training.models.ood_detector import OODDetector
from edgetl.training.models.pretrained_weights import read_weights


@pytest.fixture
def trained() -> Trained:
    torch.manual_seed(3)
    backbone = build("timm/test_resnet", 2, weights="none")
    card = ModelCard(
        ("cat, black", "犬\n"),
        backbone.spec,
        backbone.name,
        1.5,
        {"accuracy": 0.75},
        {"fingerprint": "ab"},
    )
    return Trained(backbone.module.eval(), card, {"epochs": 3, "data": "/photos"})


def test_a_run_folder_gives_back_network_card_and_settings(trained, tmp_path):
    save(trained, tmp_path / BEST)
    again = load(tmp_path)
    assert again.card == trained.card
    assert again.settings == trained.settings
    assert not again.network.training
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(again.network(images), trained.network(images))


def test_the_same_network_gives_the_same_bytes(trained, tmp_path):
    save(trained, tmp_path / "a.safetensors")
    save(load(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_what_is_kept_beside_the_network_comes_back(trained, tmp_path):
    generator = np.random.default_rng(0)
    held_out = HeldOut(
        np.array([0, 1, 1], np.int32),
        generator.normal(size=(3, 2)).astype(np.float32),
        generator.normal(size=(3, 4)).astype(np.float16),
        generator.normal(size=3).astype(np.float32),
    )
    arrays = [generator.normal(size=shape).astype(np.float32) for shape in (6, (6, 4), (3, 4))]
    ood = OODDetector(*arrays, 0.1, 1 / 3, -2.5, 1e-3)
    save(replace(trained, held_out=held_out, ood=ood), tmp_path / BEST)
    again = load(tmp_path)
    for kept, found in ((held_out, again.held_out), (ood, again.ood)):
        for name, value in vars(kept).items():
            assert np.array_equal(getattr(found, name), value)
            assert getattr(getattr(found, name), "dtype", None) == getattr(value, "dtype", None)
    assert read_weights(tmp_path / BEST).keys() == trained.network.state_dict().keys()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path, content):
    path = tmp_path / BEST
    if content is None:
        save_file({"weight": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=BEST):
        load(tmp_path)


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        load(tmp_path)
    (tmp_path / LAST).touch()  # a run that was killed early
    with pytest.raises(CheckpointError, match=f"edgetl train --resume {tmp_path}"):
        load(tmp_path)


def test_tensors_that_do_not_fit_the_card_are_refused(trained, tmp_path):
    other = build("timm/test_vit", 2, weights="none").module
    save(Trained(other, trained.card), tmp_path / BEST)
    with pytest.raises(CheckpointError, match="can't be rebuilt"):
        load(tmp_path)


def test_a_full_disk_leaves_the_earlier_file(tmp_path):
    path = tmp_path / BEST
    path.write_bytes(b"earlier")

    def fill(temporary: Path) -> None:
        temporary.write_bytes(b"half of it")
        raise OSError(28, os.strerror(28))

    with pytest.raises(CheckpointError, match=f"{BEST} can't be written: No space left on device"):
        write_atomically(path, fill)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(BEST, b"earlier")]


def test_a_file_is_on_the_disk_before_its_name_points_to_it(tmp_path, monkeypatch):
    fsync, replace, events = os.fsync, Path.replace, []

    def logged_fsync(handle: int) -> None:
        fsync(handle)
        events.append(("synced", os.fstat(handle).st_ino, os.fstat(handle).st_size))

    def logged_replace(path: Path, target: Path) -> Path:
        events.append(("named", path.stat().st_ino, target.name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    write_atomically(tmp_path / BEST, lambda temporary: temporary.write_bytes(b"weights"))
    inode = (tmp_path / BEST).stat().st_ino
    assert events == [("synced", inode, len(b"weights")), ("named", inode, BEST)]


def test_a_missing_folder_is_an_error(trained, tmp_path):
    with pytest.raises(CheckpointError, match="No such file or directory"):
        save(trained, tmp_path / "gone" / BEST)


def test_a_flipped_byte_anywhere_is_an_error(trained, tmp_path):
    path = tmp_path / "best.safetensors"
    save(trained, path)
    whole = path.read_bytes()
    for position in [*range(0, len(whole), len(whole) // 60), len(whole) - 1]:
        content = bytearray(whole)
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load(path)
    path.write_bytes(whole)
    load(path)


def test_the_state_of_a_run_is_not_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="not a checkpoint") as refused:
        load(tmp_path / "last.pt")
    assert str(tmp_path) in str(refused.value.hint)
