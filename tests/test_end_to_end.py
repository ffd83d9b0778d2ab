"""The whole path as a user types it, each step in its own process, the last without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.forked import Forked

from edgetl import ImageError, Predictor

BLOCK_TORCH = """
import sys
sys.modules.update(dict.fromkeys(["torch", "onnx", "timm"]))
from edgetl.cli.main import main
main()
"""


def edgetl(*arguments: object, torch: bool = False) -> subprocess.CompletedProcess[str]:
    program = ["-m", "edgetl"] if torch else ["-c", BLOCK_TORCH]
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def with_torch(*arguments: object) -> str:
    """What ``edgetl`` prints in a process that has torch already."""
    code, said = Forked(*map(str, arguments)).ended()
    assert code == 0, said
    return said


@pytest.fixture(scope="module")
def exported(class_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    trained = edgetl("train", class_folder, "-o", work / "run", torch=True)
    assert str(work / "run" / "best.safetensors") in succeeded(trained)
    assert "green, leaf" in trained.stderr  # classes are shown before the training
    with_torch("export", work / "run", "-o", work / "bundle", "--golden", 3)
    return work / "bundle"


def test_the_bundle_has_all_its_files(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert {"model.onnx", "model.ts.pt", "manifest.json", "golden"} <= names
    assert len(list((exported / "golden").iterdir())) == 3


def test_the_check_passes_on_photos_of_many_shapes(
    exported: Path, photo_folder: Path, tmp_path: Path
) -> None:
    report = tmp_path / "parity.json"
    shown = with_torch("check", exported, "--images", photo_folder, "--json", report)
    assert "torchscript" in shown.lower()
    assert json.loads(report.read_text())["passed"] is True


def test_the_device_predicts_the_classes_without_torch(exported: Path, class_folder: Path) -> None:
    lines = succeeded(edgetl("predict", exported, class_folder / "val", "--json")).splitlines()
    answers = [json.loads(line) for line in lines]
    assert len(answers) == 15
    right = sum(Path(answer["source"]).parent.name == answer["label"] for answer in answers)
    assert right >= 13
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_the_selftest_passes_without_torch(exported: Path) -> None:
    assert "passed" in succeeded(edgetl("selftest", exported))


def test_info_names_the_labels_and_sizes(exported: Path) -> None:
    shown = succeeded(edgetl("info", exported))
    assert '"red 花"' in shown
    assert "model.onnx" in shown


def test_paths_bytes_and_files_give_the_same_answer(exported: Path, photo_folder: Path) -> None:
    predictor, lone = Predictor(exported), Predictor(exported / "model.onnx")
    path = sorted(photo_folder.iterdir())[0]
    from_path = predictor(path)
    with path.open("rb") as file:
        others = [
            predictor(path.read_bytes()),
            predictor(file),
            lone(str(path)),
            *predictor.batch([path]),
        ]
    for other in others:
        assert not isinstance(other, ImageError)
        assert other.label == from_path.label
        assert other.probabilities.tolist() == pytest.approx(
            from_path.probabilities.tolist(), abs=1e-6
        )
