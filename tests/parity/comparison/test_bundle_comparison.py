"""Two bundles compared by their predictions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_bundle
from PIL import Image

from edgetl.data.layout import content_digest
from edgetl.data.photo_digests import pack
from edgetl.errors import ParityError
from edgetl.parity.check_photos import find_photos
from edgetl.parity.comparison.bundle_comparison import compare_bundles
from edgetl.parity.results import Accuracy, AgainstResult
from edgetl.runtime.inference.predictor import Predictor

LABELS = ("ant", "bee", "cow")


def bundle(
    folder: Path, *, seed: int = 0, labels: tuple[str, ...] = LABELS, **manifest: str
) -> Path:
    """A bundle of one matrix; another seed, another matrix."""
    described = tiny_bundle.card(labels=labels)
    tiny_bundle.write(folder, described)
    content = tiny_bundle.onnx_bytes(described, seed=seed)
    (folder / "model.onnx").write_bytes(content)
    tiny_bundle.write_manifest(folder, described, {"model.onnx": content}, [], **manifest)
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Predictor:
    return Predictor(bundle(tmp_path / "old"))


@pytest.fixture
def labelled(old: Predictor, tmp_path: Path) -> Path:
    """Thirty photos in the folders that the old model puts them in: its accuracy is 1."""
    rng = np.random.default_rng(0)
    for number in range(30):
        photo = Image.fromarray(rng.integers(0, 256, (16, 20, 3), np.uint8))
        path = tmp_path / "photos" / old(photo).label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path)
    return tmp_path / "photos"


def compare(new: Predictor, old: Predictor, images: Path, **options: Any) -> AgainstResult:
    root, photos = find_photos(images)
    return compare_bundles(new, old, [photo.path for photo in photos], root, **options)


def test_a_bundle_agrees_with_itself(old: Predictor, labelled: Path) -> None:
    result = compare(old, old, labelled, max_accuracy_drop=0.0, tolerance=0.0)
    assert result.passed
    assert (result.photos, result.agreement, result.disagreements) == (30, 1.0, ())
    assert (result.largest, result.kl_mean) == (0.0, 0.0)
    assert result.accuracy is not None
    assert (result.accuracy.new, result.accuracy.old, result.accuracy.drop) == (1.0, 1.0, 0.0)


def test_another_model_is_measured_against_the_labels_and_the_limits(
    old: Predictor, labelled: Path, tmp_path: Path
) -> None:
    new = Predictor(bundle(tmp_path / "new", seed=1))
    root, photos = find_photos(labelled)
    right = {photo.path: new(photo.path).label == photo.path.parent.name for photo in photos}
    result = compare(new, old, labelled)
    assert result.passed  # nothing was asked for
    assert result.accuracy is not None
    assert result.accuracy.new == pytest.approx(sum(right.values()) / 30)
    assert result.accuracy.old == 1.0
    for one in result.accuracy.classes:
        of_class = [ok for path, ok in right.items() if path.parent.name == one.label]
        assert (one.photos, one.new) == (
            len(of_class),
            pytest.approx(sum(of_class) / len(of_class)),
        )
    assert len(result.disagreements) == 30 - sum(right.values())
    one = result.disagreements[0]
    assert (one.new, one.old, one.truth) == (new(root / one.photo).label, one.truth, one.truth)
    drop = result.accuracy.drop
    assert drop > 5
    assert compare(new, old, labelled, max_accuracy_drop=drop + 0.01).passed
    failed = compare(new, old, labelled, max_accuracy_drop=drop - 0.01)
    assert [name for name, _ in failed.failures] == ["accuracy"]
    assert [name for name, _ in compare(new, old, labelled, tolerance=1e-4).failures] == [
        "probabilities"
    ]


@pytest.mark.parametrize("photos", [200, 400, 600, 1000, 2000])
def test_a_drop_of_exactly_the_limit_is_allowed(photos: int) -> None:
    lost = photos // 200
    for right in range(lost, photos + 1):
        assert Accuracy(photos, (right - lost) / photos, right / photos, ()).drop == 0.5


def test_labels_in_another_order_are_compared_by_name(
    old: Predictor, labelled: Path, tmp_path: Path
) -> None:
    shuffled = Predictor(bundle(tmp_path / "new", labels=("bee", "ant", "cow")))
    result = compare(shuffled, old, labelled)
    assert (result.largest, result.kl_mean) == (None, None)
    swapped = [one for one in result.disagreements if {one.new, one.old} == {"ant", "bee"}]
    assert len(swapped) == len(result.disagreements) > 0
    asked: list[Path] = []
    with pytest.raises(ParityError, match="different labels"):
        compare(shuffled, old, labelled, tolerance=0.1, progress=lambda *_: asked.append(labelled))
    assert not asked  # raised before the first photo


def test_a_limit_on_accuracy_needs_labelled_photos(
    old: Predictor, labelled: Path, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, photo in enumerate(labelled.rglob("*.png")):
        shutil.copy(photo, flat / f"{number}.png")
    assert compare(old, old, flat).accuracy is None
    with pytest.raises(ParityError, match="can't be measured"):
        compare(old, old, flat, max_accuracy_drop=0.5)
    for photo in labelled.rglob("*.png"):
        photo.write_bytes(b"")
    with pytest.raises(ParityError, match="can't be measured"):
        compare(old, old, tmp_path, max_accuracy_drop=0.5)


def test_photos_that_a_model_was_trained_on_are_named(
    old: Predictor, labelled: Path, tmp_path: Path
) -> None:
    seen = sorted(labelled.rglob("*.png"))[:2]
    listed = pack(content_digest(photo) for photo in seen)
    new = Predictor(bundle(tmp_path / "new", seed=1, training_photos=listed))
    for result in (compare(new, old, labelled), compare(old, new, labelled)):
        assert [labelled / name for name in result.trained_on] == seen
    assert compare(old, old, labelled).trained_on == ()


def test_photos_in_other_folders_are_counted_as_unlabelled(old: Predictor, labelled: Path) -> None:
    shutil.copytree(labelled, labelled / "elsewhere" / "not a label")
    for path in (labelled / "elsewhere" / "not a label").rglob("*.png"):
        path.rename(path.parent.parent / f"{path.parent.name}-{path.name}")
    result = compare(old, old, labelled)
    assert result.accuracy is not None
    assert (result.photos, result.accuracy.photos, result.unlabelled) == (60, 30, 30)


def test_unreadable_photos_are_reported_and_an_error_if_there_are_no_others(
    old: Predictor, labelled: Path, tmp_path: Path
) -> None:
    (labelled / "cut.png").write_bytes(b"\x89PNG\r\n")
    assert set(compare(old, old, labelled).unreadable) == {"cut.png"}
    (tmp_path / "only").mkdir()
    shutil.copy(labelled / "cut.png", tmp_path / "only")
    with pytest.raises(ParityError, match="None of 1 photos"):
        compare(old, old, tmp_path / "only")


def test_a_photo_that_only_one_answers_fails(
    old: Predictor, labelled: Path, tmp_path: Path
) -> None:
    picky = Predictor(tmp_path / "old", max_pixels=16 * 20 - 1)
    Image.new("RGB", (4, 4)).save(labelled / "small.png")
    result = compare(picky, old, labelled)
    assert [name for name, _ in result.failures] == ["photos"]
    assert "only the new model gives no answer" in result.failures[0][1]
    assert result.photos == 1


@pytest.mark.parametrize("both", [True, False])
def test_a_model_that_answers_nan_fails(
    old: Predictor, labelled: Path, both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a photo counts as a failure, not as unreadable, also if there is no other photo."""
    sick, run_outputs = Predictor(old.path), Predictor.run_outputs

    def run(self: Predictor, images: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
        outputs = run_outputs(self, images, **options)
        wrong = (self is sick or both) and (everything or images.flat[0] % 4)
        return {**outputs, "probabilities": outputs["probabilities"] * (np.nan if wrong else 1.0)}

    monkeypatch.setattr(Predictor, "run_outputs", run)
    (labelled / "cut.png").write_bytes(b"")
    for everything in (False, True):
        result = compare(sick, old, labelled, max_accuracy_drop=100.0)
        assert "photos" in [name for name, _ in result.failures]
        assert set(result.unreadable) == {"cut.png"}
        assert "not finite" in result.failures[0][1] and "more" in result.failures[0][1]
        assert (result.photos > 0) != everything


def test_it_needs_no_torch(old: Predictor, labelled: Path, tmp_path: Path) -> None:
    """Only rich, to print the result, and that is checked before the comparison."""
    reports = ["--json", tmp_path / "a.json", "--junit", tmp_path / "a.xml"]
    arguments = ["check", old.path, "--against", old.path, "--images", labelled, *reports]

    def check_without(*packages: str) -> subprocess.CompletedProcess[str]:
        program = f"""if True:
            import sys
            sys.modules.update(dict.fromkeys({packages}))
            from edgetl.cli.main import main
            main()"""
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    run = check_without("torch", "onnx", "jinja2", "scipy", "timm")
    assert run.returncode == 0 and "agreement 100.00%" in run.stdout, run.stderr
    assert (tmp_path / "a.json").exists() and (tmp_path / "a.xml").exists()
    run = check_without("rich", "rich.console")
    assert run.returncode == 2 and "needs the extra train" in run.stderr and not run.stdout


def test_the_agreement_over_no_photos_is_nan(old: Predictor, labelled: Path) -> None:
    result = compare(old, old, labelled)
    assert np.isnan(replace(result, photos=0).agreement)
