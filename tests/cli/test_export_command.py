"""The ``edgetl export`` command."""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from helpers.random_answers import random_answers
from helpers.small_backbone import SMALL_BACKBONE

from edgetl import Predictor
from edgetl.cli.main import command
from edgetl.data.image_folder import ImageFolders, scan
from edgetl.errors import CheckpointError, ExportError
from edgetl.evaluation.statement_check import measure_promises
from edgetl.exporting.photo_selection import calibration_photos, golden_photos
from edgetl.exporting.precision.accuracy import AccuracyEvaluator
from edgetl.exporting.precision.reduced_precision import PrecisionSettings
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.training.config.run_folder import BEST
from edgetl.training.models import checkpoint
from edgetl.training.models.backbones import build
from edgetl.training.models.checkpoint import Trained, load, save

LABELS = ("blue fish", "green, leaf", "red 花")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, class_folder: Path) -> Path:
    """A run on a copy of the data, so that a test can take the data away."""
    root = tmp_path_factory.mktemp("run")
    shutil.copytree(class_folder, root / "data")
    torch.manual_seed(0)
    backbone = build(SMALL_BACKBONE, len(LABELS), weights="none")
    card = ModelCard(LABELS, backbone.spec, SMALL_BACKBONE, 1.2)
    (root / "pets").mkdir()
    save(
        Trained(backbone.module.eval(), card, {"data": str(root / "data"), "val_fraction": 0.2}),
        root / "pets" / BEST,
    )
    return root / "pets"


def export(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["export", *map(str, arguments)])


def manifest(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


@pytest.fixture(scope="module")
def promising(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with answers for 600 held-out photos."""
    trained, known = load(run_folder), random_answers(600, classes=3, sharpness=5)
    logits = 1.2 * np.log(known.probabilities)
    empty = np.empty((0, 0), np.float16), np.empty(0, np.float32)
    held_out = HeldOut(known.targets.astype(np.int32), logits.astype(np.float32), *empty)
    promises = measure_promises(replace(known, labels=LABELS), "600 photos")
    card = replace(trained.card, promises=promises)
    file = tmp_path_factory.mktemp("promising") / "pets.safetensors"
    save(replace(trained, card=card, held_out=held_out), file)
    return file


def test_precision_of_sure_answers_is_put_into_every_model(promising: Path, tmp_path: Path) -> None:
    wanted = ["--precision-at", 0.9, "--precision-at", "green, leaf=0.95"]
    precisions = ["--precision", "fp32", "--precision", "fp16", "--max-accuracy-drop", 100]
    done = export(promising, "-o", tmp_path / "bundle", *wanted, *precisions, "--golden", 0)
    assert done.exit_code == 0, done.output
    assert "fp16: same sure answer, or none, on 100.00%" in done.output
    assert "sure: green, leaf: from a confidence of " in done.output
    assert "\nanswers that are sure: " in done.output
    written = manifest(tmp_path / "bundle")
    rules = written["card"]["promises"]["sure_answers"]
    assert [(rule["label"], rule["precision"]) for rule in rules] == [
        (None, 0.9),
        ("green, leaf", 0.95),
    ]
    assert all(0.3 < rule["threshold"] < 1 and rule["confidence"] == 0.95 for rule in rules)
    figures = [share["figure"] for share in written["card"]["promises"]["statement"]]
    assert figures == ["accuracy", *["coverage"] * 2, *["answered", "precision"] * 2]
    assert Predictor(tmp_path / "bundle/model.fp16.onnx").card.to_dict() == written["card"]
    assert written["precisions"]["fp16"]["sure_agreement"] == 1
    shown = CliRunner().invoke(command, ["info", str(tmp_path / "bundle")]).stdout
    for words in ("answers that are right: ", "green, leaf: from a confidence of", "600 photos"):
        assert words in shown


@pytest.mark.parametrize(
    ("wanted", "code", "message"),
    [
        ("0.999", 1, "there are 600 held-out ones, and it takes 2,995, all right"),
        ("99", 2, "a share between 0 and 1"),
        ("red=much", 2, "such as 0.99 or cat=0.99"),
        ("wasp=0.9", 1, "no label 'wasp'"),
    ],
)
def test_a_precision_that_can_not_be_promised_is_an_error(
    promising: Path, tmp_path: Path, wanted: str, code: int, message: str
) -> None:
    done = export(promising, "-o", tmp_path / "bundle", "--precision-at", wanted)
    assert (done.exit_code, message in done.output) == (code, True), done.output
    assert not (tmp_path / "bundle").exists()


def test_a_run_without_held_out_answers_promises_nothing(run_folder: Path, tmp_path: Path) -> None:
    done = export(run_folder, "-o", tmp_path / "bundle", "--precision-at", 0.9)
    assert done.exit_code == 1
    assert "the run kept no answers for photos that fitted nothing" in done.output


def test_it_says_what_it_wrote_and_what_comes_next(run_folder: Path, tmp_path: Path) -> None:
    done = export(run_folder, "-o", tmp_path / "bundle", "--golden", 4)
    assert done.exit_code == 0, done.output
    for words in (
        "model.onnx",
        "model.ts.pt",
        "4 photos",
        "resized pixels equal",
        f"edgetl check {tmp_path / 'bundle'}",
    ):
        assert words in done.output
    written = manifest(tmp_path / "bundle")
    assert written["checkpoint"]["path"].endswith(f"pets/{BEST}")
    assert [entry["source"] for entry in written["golden"]] == [
        "blue fish/0.jpg",
        "green, leaf/0.jpg",
        "red 花/0.jpg",
        "blue fish/1.jpg",
    ]


def test_other_golden_photos_can_be_given_or_none(
    run_folder: Path, tmp_path: Path, photo_folder: Path
) -> None:
    assert (
        export(
            run_folder, "-o", tmp_path / "a", "--golden", photo_folder, "--format", "onnx"
        ).exit_code
        == 0
    )
    assert len(manifest(tmp_path / "a")["golden"]) == len(list(photo_folder.iterdir()))
    assert not (tmp_path / "a/model.ts.pt").exists()
    done = export(run_folder, "-o", tmp_path / "b", "--golden", 0, "--format", "torchscript")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "b/golden").exists()
    assert manifest(tmp_path / "b")["models"] == {}


def test_missing_data_is_an_error_with_a_hint(run_folder: Path, tmp_path: Path) -> None:
    data = run_folder.parent / "data"
    data.rename(data.with_name("elsewhere"))
    try:
        done = export(run_folder, "-o", tmp_path / "bundle")
    finally:
        data.with_name("elsewhere").rename(data)
    assert done.exit_code == 1
    assert "need the run's data" in done.output
    assert "--golden 0" in done.output
    assert not (tmp_path / "bundle").exists()


def test_an_empty_name_for_golden_photos_is_not_the_current_folder(
    run_folder: Path, tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo_folder)
    done = export(run_folder, "-o", tmp_path / "bundle", "--golden", "")
    assert done.exit_code == 2 and not (tmp_path / "bundle").exists()


def test_a_damaged_golden_photo_is_an_error_with_a_hint(run_folder: Path, tmp_path: Path) -> None:
    data = Path(load(run_folder).settings["data"])
    damaged = golden_photos(scan(data, val_fraction=0.2), 4)[2]
    before = damaged.read_bytes()
    damaged.write_bytes(before[: len(before) // 2])
    try:
        done = export(run_folder, "-o", tmp_path / "bundle", "--golden", 4)
    finally:
        damaged.write_bytes(before)
    assert done.exit_code == 1 and damaged.name in done.output and "--golden 0" in done.output
    assert not (tmp_path / "bundle").exists()


def test_the_manifest_names_the_checkpoint_that_was_read_though_the_run_goes_on(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    read = hashlib.sha256((run_folder / BEST).read_bytes()).hexdigest()

    def improve(settings: Mapping[str, Any], *_: object) -> ImageFolders:
        (tmp_path / "run" / BEST).write_bytes(b"better weights")
        return scan(settings["data"], val_fraction=0.2)

    monkeypatch.setattr("edgetl.exporting.export_photos.run_data", improve)
    done = export(tmp_path / "run", "-o", tmp_path / "bundle", "--golden", 1, "--format", "onnx")
    assert done.exit_code == 0, done.output
    assert manifest(tmp_path / "bundle")["checkpoint"]["sha256"] == read


def test_a_checkpoint_that_changes_while_it_is_read_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = iter("ab")
    monkeypatch.setattr(checkpoint, "content_digest", lambda path: next(digests))
    with pytest.raises(CheckpointError, match="changed while it was read"):
        load(run_folder)


@pytest.mark.parametrize("golden", ["no-such-folder", "-3", "1.5"])
def test_golden_must_be_a_number_or_a_folder(run_folder: Path, tmp_path: Path, golden: str) -> None:
    done = export(run_folder, "-o", tmp_path / "bundle", "--golden", golden)
    assert done.exit_code == 2
    assert golden in done.output


def test_an_opset_that_cannot_be_written_is_an_error(run_folder: Path, tmp_path: Path) -> None:
    done = export(run_folder, "-o", tmp_path / "bundle", "--golden", 0, "--opset", 5)
    assert done.exit_code == 1
    assert "Opset 5" in done.output


@pytest.mark.parametrize(
    "options",
    [
        ("--format", "torchscript", "--opset", 15),
        ("--format", "torchscript", "--precision", "int8"),
        ("--precision", "fp16", "--calibration", 10),
        ("--max-accuracy-drop", 2),
        ("--no-unknown", "--keep-known", 0.9),
        ("--format", "torchscript", "--web"),
        ("--ort", "."),
    ],
)
def test_an_option_without_effect_is_a_usage_error(
    run_folder: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    done = export(run_folder, "-o", tmp_path / "bundle", *options)
    assert done.exit_code == 2
    assert "has an effect only with" in done.output


def test_a_page_for_browsers_is_one_line_of_the_result(run_folder: Path, tmp_path: Path) -> None:
    options = ("--format", "onnx", "--golden", 2, "--web")
    done = export(run_folder, "-o", tmp_path / "bundle", *options)
    assert done.exit_code == 0, done.output
    files = sum(path.is_file() for path in (tmp_path / "bundle/web").rglob("*"))
    assert f"{tmp_path / 'bundle/web'}  {files} files, " in done.output
    assert "index.html" not in done.output
    done = CliRunner().invoke(command, ["info", str(tmp_path / "bundle")])
    assert f"web/  {files} files" in done.output and "index.html" not in done.output


def test_a_bundle_is_not_written_among_the_photos(run_folder: Path) -> None:
    data = run_folder.parent / "data"
    done = export(run_folder, "-o", data / "exported", "--golden", 0)
    assert done.exit_code == 1 and "lies inside the folder of the photos" in done.output
    assert not (data / "exported").exists()


def test_it_warns_if_the_validation_photos_are_not_those_of_the_run(
    run_folder: Path, tmp_path: Path
) -> None:
    trained = load(run_folder)
    count = len(scan(run_folder.parent / "data").val)
    options = ("--golden", 0, "--format", "onnx", "--precision", "fp16")
    for val in (count, count + 1):
        card = replace(trained.card, data={"val": val})
        save(replace(trained, card=card), tmp_path / f"{val}.safetensors")
        done = export(tmp_path / f"{val}.safetensors", "-o", tmp_path / f"b{val}", *options)
        assert ("the run had" in done.output) == (val != count), done.output


def test_a_reduced_precision_is_evaluated_on_all_validation_photos(
    run_folder: Path, tmp_path: Path
) -> None:
    options = (
        "--precision",
        "fp32",
        "--precision",
        "int8",
        "--calibration",
        6,
        "--max-accuracy-drop",
        100,
    )
    done = export(
        run_folder, "-o", tmp_path / "bundle", "--golden", 1, "--format", "onnx", *options
    )
    assert done.exit_code == 0, done.output
    judged = manifest(tmp_path / "bundle")["precisions"]["int8"]
    assert judged["photos"] == 15
    assert set(judged["class_drops"]) == set(LABELS)
    assert f"int8: accuracy {judged['accuracy']:.2%}" in done.output
    assert "15 validation photos" in done.output
    for label, drop in judged["class_drops"].items():
        assert f"{json.dumps(label, ensure_ascii=False)} {drop + 0.0:.2f}" in done.output


def test_it_warns_if_a_reduced_precision_changes_many_labels(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = AccuracyEvaluator.evaluate
    options = ("--precision", "fp16", "--golden", 0, "--format", "onnx")
    for agreement in (0.94, 0.96):
        monkeypatch.setattr(
            AccuracyEvaluator,
            "evaluate",
            lambda *given, share=agreement: replace(evaluate(*given), agreement=share),
        )
        done = export(run_folder, "-o", tmp_path / "bundle", *options)
        assert done.exit_code == 0
        warning = "Warning: fp16 gives another label than fp32 to 6.0% of the photos"
        assert (warning in done.output) == (agreement == 0.94), done.output


def test_the_old_bundle_stays_if_a_reduced_precision_loses_too_much(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def convert_to_int8(
        network: object, card: object, settings: PrecisionSettings, progress: object
    ) -> None:
        asked.append(settings)
        raise ExportError("The int8 model loses too much.")

    monkeypatch.setattr("edgetl.exporting.bundle_writer.convert_to_int8", convert_to_int8)
    assert export(run_folder, "-o", tmp_path / "bundle", "--format", "onnx").exit_code == 0
    before = (tmp_path / "bundle/manifest.json").read_bytes()
    options = ("--precision", "int8", "--calibration", 6, "--max-accuracy-drop", 1.25)
    done = export(run_folder, "-o", tmp_path / "bundle", "--format", "onnx", *options)
    assert (done.exit_code, "loses too much" in done.output) == (1, True)
    assert (tmp_path / "bundle/manifest.json").read_bytes() == before
    assert [settings.max_accuracy_drop for settings in asked] == [1.25]
    assert len(asked[0].calibration) == 6
    assert len(asked[0].validation) == 15
    data = run_folder.parent / "data"
    split = scan(data)
    assert set(asked[0].calibration) <= {sample.path for sample in split.train}
    assert {path for path, _ in asked[0].validation} == {sample.path for sample in split.val}


def test_unreadable_training_photos_are_not_used_for_calibration(run_folder: Path) -> None:
    data = scan(run_folder.parent / "data")
    broken = [sample.path for sample in data.train[::3]]
    contents = [path.read_bytes() for path in broken]
    try:
        for path in broken:
            path.write_bytes(b"no photo")
        photos = [sample.path for sample in data.train]
        drawn = calibration_photos(photos, 6)
        assert len(drawn) == 6 and not set(drawn) & set(broken)
        assert len(calibration_photos(photos, 10_000)) == len(photos) - len(broken)
    finally:
        for path, content in zip(broken, contents, strict=True):
            path.write_bytes(content)


@pytest.mark.parametrize("weights", ["auto", "none"])
def test_the_table_of_precisions(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: str
) -> None:
    trained = load(run_folder)
    save(replace(trained, settings={**trained.settings, "weights": weights}), tmp_path / BEST)
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "bench_precision.py"))
    script["main"]([str(tmp_path), "--rounds", "2", "--threads", "1", "--precision", "int8"])
    header, _, fp32, int8 = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()[2:]
    )
    assert header[:4] == ["backbone", "precision", "MB", "× fp32"]
    assert [row[:2] for row in (fp32, int8)] == [
        [SMALL_BACKBONE, "fp32"],
        [SMALL_BACKBONE, "int8"],
    ]
    assert fp32[3] == "1.000"
    assert 0.2 < float(int8[3]) < 1
    shown = [bool(cell) for cell in int8[6:]]
    assert shown == [weights != "none"] * 3, "what random weights answer is no accuracy"


def test_it_shows_its_progress_on_a_terminal(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--golden", 1, "--precision", "fp16", "--max-accuracy-drop", 100)
    quiet = export(run_folder, "-o", tmp_path / "quiet", *options)
    monkeypatch.setattr("edgetl.cli.terminal.progress_bar._is_terminal", lambda: True)
    watched = export(run_folder, "-o", tmp_path / "watched", *options)
    assert watched.exit_code == 0, watched.output
    lines = [line.split("  ")[0] for line in watched.stderr.split("\r")[1:]]
    for step in (
        "Loading PyTorch …",
        "Writing the network as ONNX …",
        "Measuring the accuracy of fp16",
        "Writing and verifying TorchScript …",
    ):
        assert step in lines
    end = watched.stderr.rpartition("\r")[2]
    assert end.startswith("\x1b[K"), "the line is gone at the end"
    assert quiet.stderr == end.removeprefix("\x1b[K").replace("watched", "quiet")
    assert (
        quiet.stdout.replace("quiet", "watched").splitlines()[0] == watched.stdout.splitlines()[0]
    )


WITHOUT_TORCH = """
import sys
from click.testing import CliRunner
from edgetl.cli.main import command

result = CliRunner().invoke(command, ["export", sys.argv[1], "-o", "out"])
print(result.output, result.exit_code, "torch" in sys.modules)
"""


def test_a_folder_without_a_run_is_named_before_torch_is_imported(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, tmp_path], capture_output=True, text=True, check=True
    )
    assert f"There is no checkpoint {tmp_path / BEST}" in ended.stdout
    assert ended.stdout.endswith("1 False\n")
