"""The TorchScript file: it runs where edgetl is not installed."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_network import FREE, tiny_card, tiny_network
from torch import nn

from edgetl.errors import ExportError
from edgetl.exporting.formats.deployed_classifier import DeployedClassifier
from edgetl.exporting.formats.torchscript import build_torchscript

FRESH = """
import sys
sys.modules["edgetl"] = None
import numpy as np, torch
module = torch.jit.load(sys.argv[1])
images = torch.from_numpy(np.load(sys.argv[2]))
outputs = (*module.stages(images), *module(images))
np.savez(sys.argv[3], *(value.numpy() for value in outputs))  # fails if gradients are kept
"""


def test_a_process_without_edgetl_gets_every_stage(tmp_path: Path) -> None:
    network, card = tiny_network(), tiny_card()
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), np.uint8)
    (tmp_path / "model.ts.pt").write_bytes(build_torchscript(network, card))
    np.save(tmp_path / "images.npy", images)
    files = [str(tmp_path / name) for name in ("model.ts.pt", "images.npy", "answers.npz")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, *files],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        eager = DeployedClassifier(network, card)
        expected = [*eager.stages(torch.from_numpy(images)), *eager(torch.from_numpy(images))]
    with np.load(tmp_path / "answers.npz") as answers:
        for got, value in zip(answers.values(), expected, strict=True):
            np.testing.assert_allclose(got, value.numpy(), atol=1e-5)
        np.testing.assert_array_equal(answers["arr_0"], expected[0].numpy())


@pytest.mark.parametrize("size", [(30, 41), (77, 20)])
def test_a_spec_without_a_fixed_size_takes_every_size(size: tuple[int, int]) -> None:
    network, card = tiny_network(), tiny_card(FREE)
    module = torch.jit.load(io.BytesIO(build_torchscript(network, card)))
    images = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        got, expected = module(images), DeployedClassifier(network, card)(images)
    torch.testing.assert_close(got, expected)


def test_a_network_whose_trace_holds_for_one_batch_only_is_compiled() -> None:
    class Branching(nn.Module):
        def forward(self, normalized: torch.Tensor) -> torch.Tensor:
            means = normalized.mean(dim=[2, 3])
            return means * 2 if normalized.shape[0] == 2 else means

    module = torch.jit.load(io.BytesIO(build_torchscript(Branching(), tiny_card())))
    images = torch.zeros(2, 40, 40, 3, dtype=torch.uint8)
    torch.testing.assert_close(module(images)[0][0], module(images[:1])[0][0] * 2)


def test_a_network_that_can_be_neither_traced_nor_compiled_is_an_error() -> None:
    class Hopeless(nn.Module):
        def forward(self, normalized: torch.Tensor) -> torch.Tensor:
            if sys.platform:
                raise ValueError("no way")
            return normalized

    with pytest.raises(ExportError, match="can't be written as TorchScript"):
        build_torchscript(Hopeless(), tiny_card())
