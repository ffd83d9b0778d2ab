"""``edgetl import``, and all that follows it: export, check, self-test, prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from helpers.pictures import COLOURS, write_photo
from helpers.tiny_network import tiny_network
from torch import Tensor, nn

from edgetl.cli.main import command
from edgetl.runtime.inference.predictor import Predictor
from edgetl.training.torch_env.vision_libraries import timm

LABELS = ("ash", "brick", "clover")
HALF, QUARTER = ("0.5", "0.5", "0.5"), ("0.25", "0.25", "0.25")
SPEC = ["--size", "36", "--crop", "32", "--mean", *HALF, "--std", *QUARTER]


def edgetl(*arguments: Any) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


class WithSoftmax(nn.Module):
    """Its probabilities are so uneven that 8 bits would round most of them to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_network()

    def forward(self, normalized: Tensor) -> Tensor:
        return torch.softmax(4 * self.network(normalized), dim=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed, label in enumerate(LABELS):
        for number in range(4):
            path = folder / label / f"{number}.png"
            write_photo(path, COLOURS[label], 10 * seed + number, (40, 50))
    return folder


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "network.pt"
    torch.jit.script(WithSoftmax().eval()).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, program: Path, photos: Path) -> Path:
    """A run that was imported with photos."""
    folder = tmp_path_factory.mktemp("runs") / "ants"
    options = ["-o", folder, "--labels", ",".join(LABELS), *SPEC, "--images", photos]
    done = edgetl("import", program, *options)
    assert done.exit_code == 0, done.output
    assert "Network: torchscript/WithSoftmax, 3 labels" in done.output
    assert "shorter side 36, centre crop 32×32, mean [0.5, 0.5, 0.5]" in done.output
    assert "on 12 photos" in done.output
    assert f"Next: edgetl export {folder} -o exported/ants\n" in done.output
    return folder


def test_the_metrics_are_written(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["photos"] == 12
    assert [row["label"] for row in metrics["classes"]] == list(LABELS)


def test_an_imported_program_is_exported_and_passes_every_check(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "ants"
    reduced = ["--precision", "fp32", "--precision", "fp16", "--precision", "int8"]
    options = [*reduced, "--calibration-images", photos, "--max-accuracy-drop", 100]
    done = edgetl("export", run, "-o", bundle, *options)
    assert done.exit_code == 0, done.output
    assert "Warning" not in done.output
    assert "int8: accuracy" in done.output and "on 12 validation photos" in done.output
    checked = edgetl("check", bundle, "--images", photos, "--runtime", "onnxruntime-cpu")
    assert checked.exit_code == 0, checked.output
    assert "ok" in edgetl("selftest", bundle).output
    shown = edgetl("info", bundle).output
    assert "backbone     torchscript/WithSoftmax" in shown
    fp32, *others = (
        Predictor(bundle, precision=precision)(photos / "ash/0.png").probabilities
        for precision in ("fp32", "fp16", "int8")
    )
    for probabilities in others:
        np.testing.assert_allclose(probabilities, fp32, atol=0.05)


def test_named_weights_are_exported_and_pass_every_check(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
    options = ["--backbone", "timm/test_resnet", "--labels", ",".join(LABELS), "--crop", 96]
    done = edgetl("import", tmp_path / "w.pth", "-o", tmp_path / "run", *options, "--size", 100)
    assert done.exit_code == 0, done.output
    assert "--golden DIR" in done.output
    bundle = tmp_path / "bundle"
    done = edgetl("export", tmp_path / "run", "-o", bundle, "--golden", photos)
    assert done.exit_code == 0, done.output
    checked = edgetl("check", bundle, "--images", photos, "--runtime", "onnxruntime-cpu")
    assert checked.exit_code == 0, checked.output


def test_what_needs_photos_says_how_to_name_them(
    program: Path, run: Path, photos: Path, tmp_path: Path
) -> None:
    imported = tmp_path / "run"
    done = edgetl("import", program, "-o", imported, "--labels", ",".join(LABELS), *SPEC)
    assert done.exit_code == 0, done.output
    bundle = ["-o", tmp_path / "bundle", "--format", "onnx"]
    done = edgetl("export", imported, *bundle)
    assert done.exit_code == 1 and "--golden DIR" in done.output
    done = edgetl("export", imported, *bundle, "--golden", 0, "--precision", "fp16")
    assert done.exit_code == 1 and "--judge-images" in done.output
    done = edgetl("export", run, *bundle, "--golden", 0, "--precision", "int8")
    assert done.exit_code == 1 and "--calibration-images DIR" in done.output
    judged = ["--precision", "fp16", "--judge-images", photos, "--max-accuracy-drop", 100]
    done = edgetl("export", imported, *bundle, "--golden", 0, *judged)
    assert done.exit_code == 0 and "on 12 validation photos" in done.output
    for option, needs in (("--calibration-images", "int8"), ("--judge-images", "fp16 or int8")):
        done = edgetl("export", imported, *bundle, option, photos)
        assert done.exit_code == 2 and f"{option} has an effect only" in done.output
        assert needs in done.output
    done = edgetl("export", imported, "-o", tmp_path / "pt2", "--format", "pt2", "--golden", 0)
    assert done.exit_code == 1 and "Leave out --format pt2" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "3x4x5"], "neither a number of pixels nor HEIGHTxWIDTH"),
        (["--crop", "big"], "neither a number of pixels nor HEIGHTxWIDTH"),
        (["--labels", "a,b,b"], "'b' is given twice"),
        (["--crop", "64"], "no larger than the smallest resized photo"),
        (["--images", "."], "lies inside the folder of the photos"),
    ],
)
def test_options_that_can_not_be_used(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = edgetl("import", program, "-o", "run", "--labels", ",".join(LABELS), *SPEC, *options)
    assert done.exit_code in (1, 2) and message in done.output
    assert not Path("run").exists()


def test_other_commands_name_import(program: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(tiny_network().state_dict(), weights)
    for path in (program, weights):
        done = edgetl("export", path, "-o", tmp_path / "bundle")
        assert done.exit_code == 1 and f"edgetl import {path}" in done.output


def test_the_accuracy_is_measured_on_a_list_and_the_export_finds_its_photos(
    program: Path, photos: Path, tmp_path: Path
) -> None:
    rows = [{"file": path.name, "kind": "ash"} for path in sorted((photos / "ash").iterdir())]
    (tmp_path / "photos.jsonl").write_text("\n".join(map(json.dumps, rows)))
    listed = ["--images", tmp_path / "photos.jsonl", "--columns", "label=kind"]
    options = ["-o", tmp_path / "run", "--labels", ",".join(LABELS), *SPEC]
    done = edgetl("import", program, *options, *listed, "--root", photos / "ash")
    assert done.exit_code == 0, done.output
    assert "on 4 photos" in done.output
    done = edgetl("export", tmp_path / "run", "-o", tmp_path / "bundle", "--format", "onnx")
    assert done.exit_code == 0, done.output
    assert len(Predictor(tmp_path / "bundle").bundle.golden) == 4
