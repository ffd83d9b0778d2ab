"""``edgetl.export`` from Python: what it returns, reports and refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_backbone import SMALL_BACKBONE

from edgetl.data.image_folder import Sample
from edgetl.data.photo_digests import pack
from edgetl.errors import CheckpointError, DataError, ExportError
from edgetl.evaluation.evaluation_run import evaluate
from edgetl.exporting.export_run import export
from edgetl.runtime.bundle.bundle_folder import TRAINING_PHOTOS, Bundle
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.training.config.run_folder import BEST, METRICS
from edgetl.training.models.backbones import build
from edgetl.training.models.checkpoint import Trained, load, save

LABELS = ("blue fish", "green, leaf", "red 花")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, class_folder: Path) -> Path:
    """A finished run on ``class_folder``."""
    folder = tmp_path_factory.mktemp("runs") / "pets"
    folder.mkdir()
    torch.manual_seed(0)
    backbone = build(SMALL_BACKBONE, len(LABELS), weights="none")
    card = ModelCard(LABELS, backbone.spec, SMALL_BACKBONE, 1.2, data={"val": 15})
    settings = {"data": str(class_folder), "val_fraction": 0.2}
    save(Trained(backbone.module.eval(), card, settings), folder / BEST)
    (folder / METRICS).write_text("{}")
    return folder


def test_a_model_for_triton_is_written_beside_the_bundle(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "pets", golden=0, format="onnx", triton=tmp_path / "models")
    written = (tmp_path / "models/pets/1/model.onnx").read_bytes()
    assert written == (tmp_path / "pets/model.onnx").read_bytes()
    with pytest.raises(ValueError, match="triton need"):
        export(run, tmp_path / "other", format="torchscript", triton=tmp_path / "models")
    (tmp_path / "models/other").mkdir()
    (tmp_path / "models/other/notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="holds other files"):
        export(run, tmp_path / "other", golden=0, format="onnx", triton=tmp_path / "models")
    assert not (tmp_path / "other").exists()


def test_the_result_describes_the_bundle(run: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    result = export(
        str(run),
        tmp_path / "bundle",
        golden=2,
        format=["onnx"],
        precision=["fp32", "fp16"],
        max_accuracy_drop=100,
        progress=lambda *step: steps.append(step),
    )
    assert result.folder == tmp_path / "bundle"
    bundle = Bundle.open(result.folder)
    assert result.files == {
        name: found["bytes"] for name, found in bundle.manifest["files"].items()
    }
    assert {"model.onnx", "model.fp16.onnx", "golden/000.jpg"} < set(result.files)
    assert result.opsets == bundle.manifest["opset"]
    assert result.golden == len(bundle.golden) == 2
    assert {"fp32", "fp16"} == set(result.verification)
    assert result.verification["fp32"].photos == 2 + 3  # and three pictures of noise
    assert result.precisions["fp16"].photos == 15
    assert result.precisions["fp16"].accuracy == bundle.manifest["precisions"]["fp16"]["accuracy"]
    assert result.warnings == ()
    assert steps[0] == ("Loading PyTorch", 0, 0)
    assert ("Measuring the accuracy of fp16", 15, 15) in steps
    with pytest.raises(FrozenInstanceError):
        result.golden = 3


def test_the_bundle_lists_the_training_photos_unless_it_is_told_not_to(
    run: Path, tmp_path: Path, samples: tuple[Sample, ...]
) -> None:
    digests = pack(sample.digest for sample in samples)
    save(replace(load(run), photos=digests), tmp_path / "listed.safetensors")
    seen = samples[0].path.parents[1]
    judged = {"precision": ("fp32", "fp16"), "judge_images": seen, "max_accuracy_drop": 100}
    for options, expected in ((judged, digests), ({"digests": False}, None)):
        bundle = tmp_path / f"bundle {expected is None}"
        told = export(tmp_path / "listed.safetensors", bundle, golden=0, format="onnx", **options)
        if options is judged:
            assert told.precisions["fp16"].trained_on == told.precisions["fp16"].photos == 36
        assert Bundle.open(bundle).manifest.get(TRAINING_PHOTOS) == expected
        result = evaluate(bundle, samples[0].path.parents[2])
        found = result.trained_on
        assert found is None if expected is None else len(found) == len(samples) == 36
        assert {Path(name).parts[0] for name in found or ("train",)} == {"train"}


def test_golden_photos_may_come_from_a_folder(
    run: Path, tmp_path: Path, photo_folder: Path
) -> None:
    result = export(run, tmp_path / "bundle", golden=photo_folder, format="torchscript")
    assert result.golden == len(list(photo_folder.iterdir()))
    assert result.opsets == {}
    assert set(result.verification) == {"torchscript"}


def test_an_empty_file_among_the_golden_photos_is_named_and_left_out(
    run: Path, tmp_path: Path, photo_folder: Path
) -> None:
    golden = tmp_path / "golden"
    golden.mkdir()
    (golden / "a.jpg").touch()
    with pytest.raises(ExportError, match=r"No photo in .* can be read:\n.*a\.jpg"):
        export(run, tmp_path / "bundle", golden=golden)
    shutil.copy(next(photo_folder.glob("*.png")), golden / "b.png")
    result = export(run, tmp_path / "bundle", golden=golden, format="onnx")
    assert result.golden == 1
    assert result.warnings == (f"{golden / 'a.jpg'} is left out: it is empty (0 bytes).",)


def test_a_folder_without_photos_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"No photo in .* was found"):
        export(run, tmp_path / "bundle", golden=tmp_path / "empty")
    assert not (tmp_path / "bundle").exists()


def test_an_unfinished_run_is_exported_with_a_warning(run: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / BEST).write_bytes((run / BEST).read_bytes())
    result = export(unfinished, tmp_path / "bundle", golden=0, format="torchscript")
    assert len(result.warnings) == 1 and "is not finished" in result.warnings[0]


def test_a_warning_about_the_photos_is_not_lost_if_the_accuracy_is_refused(
    run: Path, tmp_path: Path
) -> None:
    trained = load(run)
    card = replace(trained.card, data={"val": 16})
    save(replace(trained, card=card), tmp_path / BEST)
    (tmp_path / METRICS).write_text("{}")
    with pytest.raises(ExportError, match="points of accuracy") as caught:
        export(
            tmp_path,
            tmp_path / "bundle",
            golden=0,
            format=["onnx"],
            precision=["fp16"],
            max_accuracy_drop=-101,
        )
    assert ["the run had 16" in note for note in caught.value.__notes__] == [True]


def test_a_bundle_is_not_written_into_the_data_folder(run: Path, class_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="inside the folder of the photos"):
        export(run, class_folder / "exported", golden=0)
    assert not (class_folder / "exported").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"format": ["tflite"]}, ValueError, "'tflite' is none of"),
        ({"format": "tflite"}, ValueError, "'tflite' is none of"),
        ({"precision": ["int4"]}, ValueError, "'int4' is none of"),
        ({"golden": -1}, ValueError, "golden is -1"),
        ({"calibration": 0}, ValueError, "calibration is 0"),
        ({"max_accuracy_drop": float("nan")}, ValueError, "max_accuracy_drop is nan"),
    ],
)
def test_arguments_that_can_not_be_used_are_refused_before_any_work(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        export(tmp_path / "no run", tmp_path / "bundle", **arguments)


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, edgetl.exporting.export_run; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_lists_name_the_photos_of_an_export(run: Path, class_folder: Path, tmp_path: Path) -> None:
    photos = sorted(class_folder.rglob("*.jpg"))
    rows = [{"file": str(path), "class": path.parent.name} for path in photos[::3]]
    (tmp_path / "photos.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "golden.txt").write_text(f"{photos[0].name}\n{photos[1].name}")
    with pytest.raises(DataError, match="--root: no effect"):
        export(run, tmp_path / "bundle", golden=0, root=class_folder)
    result = export(
        run,
        tmp_path / "bundle",
        golden=tmp_path / "golden.txt",
        format="onnx",
        precision=("fp32", "fp16"),
        judge_images=tmp_path / "photos.jsonl",
        max_accuracy_drop=100,
        root=photos[0].parent,
    )
    assert result.golden == 2
    assert result.precisions["fp16"].photos == len(rows)
