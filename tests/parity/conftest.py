"""One small trained network and its export, shared by the tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_backbone import SMALL_BACKBONE
from helpers.small_export import LABELS, SPEC, Check, Exported
from PIL import Image

from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.parity.check_photos import find_photos
from edgetl.parity.comparison.runtime_comparison import compare_runtimes
from edgetl.parity.results import CheckResult
from edgetl.parity.runtimes import Subject
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.training.config.run_folder import BEST
from edgetl.training.models import backbones, checkpoint


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A network with random weights, its head scaled so that the probabilities vary."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(3)
    backbone = backbones.build(SMALL_BACKBONE, len(LABELS), weights="none")
    head = backbone.module.get_submodule(backbone.head)
    with torch.no_grad():
        head.weight.normal_(0, 1.0)
    card = ModelCard(LABELS, SPEC, SMALL_BACKBONE, temperature=1.4)
    trained = checkpoint.Trained(backbone.module.eval(), card)
    run = folder / "run" / BEST
    run.parent.mkdir()
    checkpoint.save(trained, run)
    bundle = export_bundle(
        Deployment(trained.network, card), folder / "bundle", golden=(), opset=17, checkpoint=run
    ).folder
    return Exported(bundle, run, trained.network, card)


@pytest.fixture
def copied(exported: Exported, tmp_path: Path) -> Exported:
    """The same, with a bundle that the test may change."""
    folder = tmp_path / "exported" / "bundle"
    shutil.copytree(exported.folder.parent, folder.parent)
    return Exported(folder, folder.parent / "run" / BEST, exported.network, exported.card)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photos in class folders; two of one size, so that they make a batch."""
    folder = tmp_path_factory.mktemp("photos")
    sizes = [(60, 50), (60, 50), (50, 70), (130, 45), (31, 90), (48, 40), (7, 5)]
    for number, (width, height) in enumerate(sizes):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse).astype(np.int16) + rng.integers(-30, 31, (height, width, 3))
        path = folder / LABELS[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def run_check(photos: Path) -> Check:
    """A function: a subject and options of ``check`` → its result over ``photos``."""

    def run(
        subject: Subject, *runtimes: str, images: Path = photos, tolerance: float | None = None
    ) -> CheckResult:
        root, found = find_photos(images)
        paths = [photo.path for photo in found]
        return compare_runtimes(subject, paths, root, runtimes=runtimes, tolerance=tolerance)

    return run
