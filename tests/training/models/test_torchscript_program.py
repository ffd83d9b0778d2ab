"""Checkpoints that hold a whole network as a TorchScript program."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.tiny_network import tiny_card, tiny_network
from safetensors import safe_open

from edgetl.errors import CheckpointError, TrainingError
from edgetl.training.config.run_folder import BEST
from edgetl.training.models.backbones import build
from edgetl.training.models.checkpoint import Trained, load, save
from edgetl.training.models.pretrained_weights import DESCRIPTION_KEY
from edgetl.training.models.torchscript_program import is_torchscript, read_program


@pytest.fixture
def run(tmp_path):
    save(Trained(torch.jit.script(tiny_network()), tiny_card()), tmp_path / BEST)
    return tmp_path


def test_a_program_is_rebuilt_with_the_same_answers_and_bytes(run, tmp_path):
    again = load(run)
    pictures = torch.randn(2, 3, 31, 32)
    with torch.no_grad():
        torch.testing.assert_close(again.network(pictures), tiny_network()(pictures))
    assert again.card == tiny_card() and not again.network.training
    save(again, tmp_path / "second.safetensors")
    save(load(tmp_path / "second.safetensors"), tmp_path / "third.safetensors")
    second, third = (
        (tmp_path / f"{name}.safetensors").read_bytes() for name in ("second", "third")
    )
    assert second == third


def test_only_such_a_checkpoint_has_a_schema_that_older_versions_refuse(run, tmp_path):
    backbone = build("timm/test_resnet", 3, weights="none")
    save(Trained(backbone.module.eval(), tiny_card()), tmp_path / "named.safetensors")
    schemas = []
    for path in (run / BEST, tmp_path / "named.safetensors"):
        with safe_open(path, framework="pt") as file:
            schemas.append(json.loads(file.metadata()[DESCRIPTION_KEY])["schema"])
    assert schemas == [2, 1]


def test_a_damaged_program_is_refused_before_it_is_read(run):
    content = bytearray((run / BEST).read_bytes())
    content[-100] ^= 1
    (run / BEST).write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum does not match"):
        load(run)


def test_training_can_not_start_from_a_program(run):
    with pytest.raises(TrainingError, match="a whole network as TorchScript"):
        build("resnet18", 3, weights=run / BEST)
    torch.jit.script(tiny_network()).save(run / "program.pt")
    with pytest.raises(TrainingError, match="is TorchScript: a whole network") as caught:
        build("resnet18", 3, weights=run / "program.pt")
    assert "edgetl import" in str(caught.value.hint)


def test_torchscript_is_told_from_other_files(tmp_path):
    torch.jit.script(tiny_network()).save(tmp_path / "program.pt")
    torch.save(tiny_network().state_dict(), tmp_path / "weights.pth")
    (tmp_path / "text").write_text("no archive")
    assert is_torchscript(tmp_path / "program.pt")
    for name in ("weights.pth", "text", "missing"):
        assert not is_torchscript(tmp_path / name)
        with pytest.raises(RuntimeError):
            read_program(tmp_path / name)
