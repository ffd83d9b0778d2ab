"""``edgetl.check`` as a Python function: what it takes, and what it returns or raises."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.shards import members, write_tars
from helpers.small_export import Exported

from edgetl.errors import CheckpointError, DataError, NoSuchModelError, ParityError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.parity.check_model import check
from edgetl.parity.results import AgainstResult, CheckResult
from edgetl.runtime.bundle.bundle_folder import MANIFEST


@pytest.fixture
def with_golden(exported: Exported, photos: Path, tmp_path: Path) -> Path:
    """A bundle that holds three golden photos."""
    return export_bundle(
        Deployment(exported.network, exported.card),
        tmp_path / "with golden",
        golden=sorted(photos.rglob("*.png"))[:3],
        checkpoint=exported.run,
    ).folder


def test_a_bundle_is_compared_with_the_run_that_it_names(exported: Exported, photos: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    result = check(
        exported.folder,
        photos,
        runtime=["onnxruntime-cpu"],
        progress=lambda *step: steps.append(step),
    )
    assert isinstance(result, CheckResult) and result.passed, result.failures
    assert (result.bundle, result.root, result.photos) == (str(exported.folder), photos, 7)
    assert [run.name for run in result.runtimes] == ["onnxruntime-cpu"]
    assert [(done, total) for _, done, total in steps] == [(done, 7) for done in range(8)]


def test_paths_may_be_text(exported: Exported, photos: Path) -> None:
    photo, run = str(next(photos.rglob("*.png"))), str(exported.run)
    model = str(exported.folder / "model.onnx")
    result = check(model, photo, checkpoint=run, runtime=("predictor",), tolerance=0.01)
    assert result.passed and (result.photos, result.tolerance) == (1, 0.01)


def test_against_compares_two_exports_by_their_predictions(
    exported: Exported, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported.folder.parent)
    name = exported.folder.name
    result = check(name, photos, against=name, tolerance=0.0, limit=3)
    assert (result.new, result.old) == (name, name), "as given"
    assert isinstance(result, AgainstResult) and result.passed
    assert (result.photos, result.agreement, result.largest) == (3, 1.0, 0.0)


def test_without_images_the_golden_photos_are_compared(with_golden: Path) -> None:
    result = check(with_golden, runtime=["onnxruntime-cpu"])
    assert result.passed and (result.photos, result.root) == (3, with_golden)
    assert check(with_golden, against=with_golden).photos == 3


def test_without_images_and_without_golden_photos_nothing_can_be_compared(
    exported: Exported,
) -> None:
    for model in (exported.folder, exported.folder / "model.onnx"):
        with pytest.raises(ParityError, match="no golden photos"):
            check(model)


def test_a_limit_spreads_the_photos_evenly(exported: Exported, photos: Path) -> None:
    result = check(exported.folder, photos, runtime=["onnxruntime-cpu"], limit=2)
    compared = {comparison.photo for comparison in result.runtimes[0].decisions.worst}
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    assert compared == {names[0], names[7 // 2]}


@pytest.mark.parametrize("against", [True, False])
def test_a_damaged_bundle_is_a_result_that_has_not_passed(
    copied: Exported, photos: Path, against: bool
) -> None:
    (copied.folder / MANIFEST).write_text("{}")
    result = check(copied.folder, photos, against=copied.folder if against else None)
    assert not result.passed and result.photos == 0
    ((name, reason),) = result.failures
    assert name == "bundle" and MANIFEST in reason


def test_what_can_not_be_compared_is_an_exception(
    copied: Exported, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="nowhere"):
        check(copied.folder, tmp_path / "nowhere")
    with pytest.raises(NoSuchModelError, match="not a bundle"):
        check(tmp_path, photos)
    for images in (photos, None):
        with pytest.raises(NoSuchModelError, match="nowhere: there is no such bundle"):
            check(tmp_path / "nowhere", images)
    with pytest.raises(NoSuchModelError, match="int8"):
        check(copied.folder, photos, precision="int8")
    with pytest.raises(ParityError, match="no runtime 'tflite'"):
        check(copied.folder, photos, runtime=["tflite"])
    with pytest.raises(CheckpointError, match="There is no checkpoint") as caught:
        check(copied.folder, photos, checkpoint=tmp_path)
    assert caught.value.hint
    with pytest.raises(CheckpointError, match="does not say which checkpoint"):
        check(copied.folder / "model.onnx", photos)
    shutil.rmtree(copied.folder.parent / "run")
    recorded = json.loads((copied.folder / MANIFEST).read_bytes())["checkpoint"]["path"]
    with pytest.raises(CheckpointError, match=rf"gone(.|\n)*{Path(recorded).name}"):
        check(copied.folder, photos)


@pytest.mark.parametrize(
    "options",
    [
        {"against": "new", "runtime": ["predictor"]},
        {"against": "new", "checkpoint": "run"},
        {"max_accuracy_drop": 1.0},
        {"max_accuracy_drop": 101.0, "against": "new"},
        {"max_accuracy_drop": float("nan"), "against": "new"},
        {"limit": 0},
        {"tolerance": -0.1},
        {"tolerance": float("nan")},
    ],
)
def test_arguments_without_a_meaning_are_refused(
    tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        check(tmp_path, tmp_path, **options)


def test_a_single_runtime_may_be_named_without_a_list(exported: Exported, photos: Path) -> None:
    result = check(exported.folder, photos, runtime="onnxruntime-cpu", limit=1)
    assert [run.name for run in result.runtimes] == ["onnxruntime-cpu"]


def test_importing_it_loads_neither_torch_nor_numpy() -> None:
    program = (
        "import sys; from edgetl.parity.check_model import check; "
        "print(*{'torch', 'numpy', 'onnxruntime', 'onnx'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == ""


def test_photos_in_shards_are_compared_as_files_are(
    exported: Exported, photos: Path, tmp_path: Path
) -> None:
    shards = write_tars(tmp_path / "shards", members(photos, label=""), 2)
    runtimes = ["torchscript", "onnxruntime-cpu", "predictor"]
    of_files, of_shards = (
        check(exported.folder, place, runtime=runtimes) for place in (photos, shards)
    )
    assert of_shards.passed and of_shards.photos == of_files.photos == 7
    assert [run.name for run in of_shards.runtimes] == runtimes
    for expected, found in zip(of_files.runtimes, of_shards.runtimes, strict=True):
        assert found.photos == 7
        assert [stage.worst.largest for stage in found.stages if stage.worst] == [
            stage.worst.largest for stage in expected.stages if stage.worst
        ]
