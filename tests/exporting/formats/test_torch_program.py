"""The torch.export program: one recording for photos of every size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import resize_oracle
from helpers.tiny_network import CROPPED, FREE, tiny_card, tiny_network
from torch import nn

from edgetl.errors import ExportError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.formats.deployed_classifier import DeployedClassifier
from edgetl.exporting.formats.torch_program import (
    BranchFreePreprocess,
    branch_free_classifier,
    build_program,
)
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.runtime.images.spec import PreprocessSpec

HALF = (0.5, 0.5, 0.5)
SQUASHED = PreprocessSpec("squash", (21, 30), "bilinear", None, HALF, HALF)
SIZES = [(1, 1), (1, 50), (21, 30), (36, 36), (36, 90), (70, 50), (301, 33), (33, 301)]


@pytest.mark.parametrize("spec", [CROPPED, SQUASHED], ids=["cropped", "squashed"])
@pytest.mark.parametrize("size", SIZES)
def test_its_resize_equals_the_reference(spec: PreprocessSpec, size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    resized = BranchFreePreprocess(spec).resize(torch.from_numpy(images)).numpy()
    for picture, its_resized in zip(images, resized, strict=True):
        np.testing.assert_array_equal(its_resized, resize_oracle.resize(picture, spec))


def test_the_file_gives_the_networks_answers_for_every_size_and_batch() -> None:
    network, card = tiny_network(), tiny_card()
    module = torch.export.load(
        io.BytesIO(build_program(branch_free_classifier(network, card)))
    ).module()
    expected = DeployedClassifier(network, card)
    for photos, (height, width) in zip((1, 2, 3, 1, 2, 3, 1, 2), SIZES, strict=True):
        images = torch.randint(0, 256, (photos, height, width, 3), dtype=torch.uint8)
        with torch.inference_mode():
            torch.testing.assert_close(module(images), expected(images))


def test_a_bundle_holds_it_on_request(tmp_path: Path) -> None:
    bundle = export_bundle(
        Deployment(tiny_network(), tiny_card(SQUASHED)),
        tmp_path / "b",
        golden=[],
        formats=["onnx", "pt2"],
    ).folder
    manifest = Bundle.open(bundle).manifest
    assert manifest["pt2"] == "model.pt2"
    assert manifest["verification"]["pt2"]["photos"] == 3
    assert {path.name for path in bundle.iterdir()} == {"model.onnx", "model.pt2", "manifest.json"}


def test_pictures_without_a_fixed_size_are_refused() -> None:
    with pytest.raises(ExportError, match="one size"):
        branch_free_classifier(tiny_network(), tiny_card(FREE))


def test_a_network_that_cannot_be_recorded_is_an_error() -> None:
    class Branching(nn.Module):
        def forward(self, normalized: torch.Tensor) -> torch.Tensor:
            means = normalized.mean(dim=[2, 3])
            return means if means.sum() > 0 else -means

    with pytest.raises(ExportError, match=r"can't be written as a torch\.export program"):
        build_program(branch_free_classifier(Branching(), tiny_card()))
