"""Frozen features: those of the live network, whatever was cached, and never lost."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.forked import Forked
from helpers.small_backbone import SMALL_BACKBONE
from torch import nn

from edgetl.data.image_folder import Sample, scan
from edgetl.errors import TrainingError
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import normalize, resize_image
from edgetl.training.head import features
from edgetl.training.head.feature_extractor import OnnxExtractor
from edgetl.training.head.features import Features, extract_features, weights_fingerprint
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build

FEATURES = 48  # of the backbone
# Of the largest feature: two runtimes add the same float32 products in different orders.
TOLERANCE = 1e-4


def live_features(backbone: Backbone, samples: Sequence[Sample]) -> np.ndarray:
    """The reference: the network in eval mode without its head layer, one photo at a time."""
    network = copy.deepcopy(backbone.module).eval()
    network.set_submodule(backbone.head, nn.Identity())
    rows = []
    for sample in samples:
        pixels = resize_image(read_image(sample.path), backbone.spec)
        with torch.no_grad():
            rows.append(
                network(torch.from_numpy(normalize(pixels[None], backbone.spec)))[0].numpy()
            )
    return np.stack(rows)


def test_features_equal_the_live_forward(backbone: Backbone, samples: tuple[Sample, ...]) -> None:
    found = extract_features(backbone, samples)
    assert found.runtime.startswith("onnxruntime") and not found.notes and not found.unreadable
    expected = live_features(backbone, samples)
    np.testing.assert_allclose(
        found.of(samples), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    "name",
    ["timm/test_resnet", "timm/test_vit", "resnet18", "mobilenet_v3_small", "timm/test_convnext"],
)
def test_every_backbone_gives_the_input_of_its_head(name: str, samples: tuple[Sample, ...]) -> None:
    backbone = build(name, 3, weights="none")
    backbone = replace(
        backbone, spec=replace(backbone.spec, resize="squash", size=(160, 160), crop=None)
    )
    values = extract_features(backbone, samples[:3]).of(samples[:3])
    expected = live_features(backbone, samples[:3])
    assert values.shape == (3, backbone.module.get_submodule(backbone.head).in_features)
    np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_the_number_of_threads_changes_no_bit(
    backbone: Backbone, samples: tuple[Sample, ...]
) -> None:
    one, four = (
        extract_features(backbone, samples, threads=threads).of(samples) for threads in (1, 4)
    )
    assert one.tobytes() == four.tobytes()


def test_without_onnxruntime_torch_gives_the_same_and_says_so(
    backbone: Backbone, samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = extract_features(backbone, samples)
    assert found.runtime == f"torch {torch.__version__}"
    assert len(found.notes) == 1 and "onnxruntime is not installed" in found.notes[0]
    expected = live_features(backbone, samples)
    np.testing.assert_allclose(
        found.of(samples), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max()
    )


def test_a_faster_runtime_with_other_features_is_not_used(
    backbone: Backbone, samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        OnnxExtractor, "__call__", lambda self, pixels: np.zeros((1, FEATURES), np.float32)
    )
    found = extract_features(backbone, samples[:2])
    assert found.runtime.startswith("torch") and "differ" in found.notes[0]


class Attending(nn.Module):
    """As in torchvision's transformers: torch fuses its attention into an operator ONNX lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 16, 16)
        self.layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layer(self.patches(images).flatten(2).transpose(1, 2)).mean(1)
        return torch.as_tensor(self.head(features))


def test_attention_is_computed_by_the_fast_runtime_silently(
    samples: tuple[Sample, ...], backbone: Backbone, capfd: pytest.CaptureFixture[str]
) -> None:
    attending = replace(
        backbone, name="attending", module=Attending().eval(), heads=("head",), blocks=()
    )
    found = extract_features(attending, samples[:3])
    assert found.runtime.startswith("onnxruntime") and not found.notes
    expected = live_features(attending, samples[:3])
    np.testing.assert_allclose(
        found.of(samples[:3]), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max()
    )
    assert capfd.readouterr() == ("", "")


def test_a_head_that_is_not_linear_is_refused(samples: tuple[Sample, ...]) -> None:
    with pytest.raises(TrainingError, match="not one linear layer"):
        extract_features(build("squeezenet1_1", 2, weights="none"), samples)


def test_the_fingerprint_is_of_what_is_frozen(backbone: Backbone) -> None:
    other_head = replace(backbone, module=copy.deepcopy(backbone.module))
    nn.init.zeros_(other_head.module.get_submodule(backbone.head).weight)
    other_body = replace(backbone, module=copy.deepcopy(backbone.module))
    next(other_body.module.buffers()).add_(1)
    assert (
        weights_fingerprint(other_head)
        == weights_fingerprint(backbone)
        != weights_fingerprint(other_body)
    )


def test_what_was_computed_before_an_interruption_is_kept(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    def stop(step: str, done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(backbone, samples, cache=tmp_path, progress=stop)
    found = extract_features(backbone, samples, cache=tmp_path)
    assert found.cached == 7
    assert found.of(samples).tobytes() == extract_features(backbone, samples).of(samples).tobytes()


def extract_until_killed() -> None:
    """The arguments are the photos' folder and the cache."""
    features.SHARD = 8
    torch.manual_seed(0)
    backbone = build(SMALL_BACKBONE, 3, weights="none")

    def kill(step: str, done: int, total: int) -> None:
        if done == 20:
            os.kill(os.getpid(), signal.SIGKILL)

    samples = scan(Path(sys.argv[1])).train
    extract_features(backbone, samples, cache=Path(sys.argv[2]), progress=kill)


def test_a_killed_run_loses_no_more_than_a_shard(
    backbone: Backbone, samples: tuple[Sample, ...], class_folder: Path, tmp_path: Path
) -> None:
    killed = Forked(str(class_folder), str(tmp_path), program=extract_until_killed)
    assert killed.ended()[0] == -signal.SIGKILL
    found = extract_features(backbone, samples, cache=tmp_path)
    assert found.cached == 16  # two whole shards of the 20 photos that were done
    assert found.of(samples).tobytes() == extract_features(backbone, samples).of(samples).tobytes()


@pytest.mark.parametrize("first", [2, 17])
def test_with_torch_too_the_result_does_not_depend_on_the_cache(
    first: int,
    backbone: Backbone,
    samples: tuple[Sample, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    some = extract_features(backbone, samples[:first], cache=tmp_path)
    both = extract_features(backbone, samples, cache=tmp_path, known=some).of(samples)
    again = extract_features(backbone, samples, cache=tmp_path).of(samples)
    assert (
        both.tobytes()
        == again.tobytes()
        == extract_features(backbone, samples).of(samples).tobytes()
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_photos_that_cannot_be_read_are_named(
    runtime: str,
    backbone: Backbone,
    two_parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if runtime == "torch":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    bad = two_parts / "train/ash/003.png"
    bad.write_bytes(bad.read_bytes()[:200])
    folders = scan(two_parts)
    found: Features = extract_features(backbone, folders.train, cache=tmp_path / "cache")
    assert list(found.unreadable) == [bad]
    readable = folders.without(found.unreadable)
    assert found.of(readable.train).shape == (15, FEATURES)
    assert (
        extract_features(backbone, folders.train, cache=tmp_path / "cache").unreadable
        == found.unreadable
    )


def test_a_photo_that_changes_before_it_is_read_is_unreadable(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    photo = samples[0].path
    before = photo.read_bytes()
    photo.write_bytes(samples[-1].path.read_bytes())
    assert (
        "changed while" in extract_features(backbone, samples[:2], cache=tmp_path).unreadable[photo]
    )
    photo.unlink()
    assert (
        "no such file" in extract_features(backbone, samples[:2], cache=tmp_path).unreadable[photo]
    )
    photo.write_bytes(before)
    found = extract_features(backbone, samples[:2], cache=tmp_path)
    assert not found.unreadable
    np.testing.assert_allclose(
        found.of(samples[:1]), live_features(backbone, samples[:1]), rtol=0, atol=1e-3
    )


def test_copies_of_a_photo_are_computed_once(
    backbone: Backbone, samples: tuple[Sample, ...]
) -> None:
    seen: list[tuple[int, int]] = []
    twice = [*samples[:4], *samples[:4]]
    found = extract_features(
        backbone, twice, progress=lambda step, done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.of(twice).shape[0] == 8
