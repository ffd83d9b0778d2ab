"""The comparison as a whole: which runtimes run, are skipped or fail, and what is an error."""

from __future__ import annotations

import copy
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers import tampering
from helpers.small_export import SPEC, Check, Exported
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.errors import ParityError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.formats.torch_program import branch_free_classifier, build_program
from edgetl.exporting.formats.torchscript import build_torchscript
from edgetl.parity.check_photos import CHUNK_PHOTOS, Photo, Unreadable, find_photos, read_chunks
from edgetl.parity.comparison.runtime_comparison import compare_runtimes
from edgetl.parity.runtimes import RUNTIMES, Runtime, Subject, fresh_worker
from edgetl.parity.runtimes.onnxruntime import OnnxRuntimeBatch, OnnxRuntimeCpu
from edgetl.parity.runtimes.torch_reference import TorchReference
from edgetl.parity.runtimes.torchscript_file import TorchScriptFresh
from edgetl.parity.stages import Refusal, Stages
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec


@pytest.fixture
def with_broken_photos(photos: Path, tmp_path: Path) -> Path:
    """The photos, one cut short and one of no image at all among them."""
    folder = tmp_path / "some broken"
    shutil.copytree(photos, folder)
    whole = next(iter(sorted(folder.rglob("*.png")))).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not a photo")
    return folder


class Fake(Runtime):
    """onnxruntime, with a way to make it fail."""

    name = "fake"
    spoil: ClassVar[str] = ""

    def __init__(self, subject: Subject) -> None:
        self._correct = OnnxRuntimeCpu(subject)
        self._calls = 0
        if self.spoil == "opening":
            raise ValueError("the file is of another kind")

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        self._calls += 1
        if self.spoil == "second call" and self._calls == 2:
            raise RuntimeError("kernel exploded\nat line 7")
        found = list(self._correct.run(photos))
        return found[1:] if self.spoil == "one missing" else found


def use_fake(monkeypatch: pytest.MonkeyPatch, **attributes: object) -> None:
    monkeypatch.setitem(RUNTIMES, "fake", type("Fake", (Fake,), attributes))


def test_a_runtime_that_raises_in_the_middle_fails_with_its_message(
    exported: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fake(monkeypatch, spoil="second call")
    monkeypatch.setattr("edgetl.parity.check_photos.CHUNK_PHOTOS", 3)
    result = run_check(exported.subject(), "fake", "onnxruntime-cpu")
    assert not result.passed
    assert result.failures == [("fake", "RuntimeError: kernel exploded at line 7")]
    assert {run.name: run.status for run in result.runtimes} == {
        "onnxruntime-cpu": "passed",
        "fake": "failed",
    }


@pytest.mark.parametrize(
    ("spoil", "words"), [("opening", "another kind"), ("one missing", "it answered 6 of 7 photos")]
)
def test_other_ways_to_fail(
    exported: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch, spoil: str, words: str
) -> None:
    use_fake(monkeypatch, spoil=spoil)
    result = run_check(exported.subject(), "fake")
    assert [(run.status, words in run.reason) for run in result.runtimes] == [("failed", True)]


def test_figures_for_information_decide_nothing(
    exported: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rough(Fake):
        judged = False

        def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
            return [
                replace(found, probabilities=1 - found.probabilities)
                for found in super().run(photos)
            ]

    monkeypatch.setitem(RUNTIMES, "fake", Rough)
    result = run_check(exported.subject(), "onnxruntime-cpu", "fake")
    assert result.passed
    shown = result.runtimes[-1]
    assert (shown.name, shown.status, shown.departure) == ("fake", "shown", "probabilities")


def test_information_alone_fails(
    exported: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fake(monkeypatch, judged=False)
    result = run_check(exported.subject(), "fake")
    assert not result.passed
    assert result.failures == [("compared", "no runtime was compared")]


def test_a_runtime_that_has_failed_is_given_no_more_photos(
    exported: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def run(self: Fake, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        calls.append(len(photos))
        raise RuntimeError("at once")

    use_fake(monkeypatch, run=run)
    monkeypatch.setattr("edgetl.parity.check_photos.CHUNK_PHOTOS", 3)
    assert not run_check(exported.subject(), "fake").passed
    assert calls == [3]


def test_a_missing_package_skips_a_runtime_and_fails_a_requested_one(
    exported: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(RUNTIMES, "torchscript-fresh", RUNTIMES["torchscript"])  # quick to start
    by_name = {run.name: run for run in run_check(exported.subject()).runtimes}
    assert by_name["openvino"].status == "skipped"
    assert 'pip install "edgetl[openvino]"' in by_name["openvino"].reason
    asked = run_check(exported.subject(), "openvino", "onnxruntime-cpu")
    assert not asked.passed
    assert [run.name for run in asked.runtimes if run.status == "failed"] == ["openvino"]


def test_a_bundle_without_torchscript(copied: Exported, run_check: Check) -> None:
    tampering.sign(copied.folder, torchscript=None)
    by_name = {run.name: run.status for run in run_check(copied.subject()).runtimes}
    assert (by_name["torchscript"], by_name["torchscript-fresh"]) == ("skipped", "skipped")
    assert not run_check(copied.subject(), "torchscript").passed


def test_a_bundle_without_onnx_is_checked_by_what_it_has(
    exported: Exported, run_check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = export_bundle(
        Deployment(exported.network, exported.card),
        tmp_path / "bundle",
        golden=(),
        formats=("torchscript",),
        checkpoint=exported.run,
    ).folder
    monkeypatch.setitem(RUNTIMES, "torchscript-fresh", RUNTIMES["torchscript"])  # quick to start
    result = run_check(exported.subject(bundle))
    assert result.passed, result.failures
    assert {run.name: run.status for run in result.runtimes}["predictor"] == "skipped"


def add_program(copied: Exported, card: ModelCard) -> None:
    """Put a torch.export program of ``card`` into the bundle."""
    (copied.folder / "model.pt2").write_bytes(
        build_program(branch_free_classifier(copied.network, card))
    )
    tampering.sign(copied.folder, pt2="model.pt2")


def test_a_torch_export_file(copied: Exported, run_check: Check) -> None:
    add_program(copied, copied.card)
    result = run_check(copied.subject(), "pt2")
    assert result.passed, result.failures
    resized = result.runtimes[0].stage("resized")
    assert resized is not None and (resized.size, resized.differing) == (7 * 32 * 32 * 3, 0)


@pytest.mark.parametrize(
    ("change", "stage"),
    [({"interpolation": "bilinear"}, "resized"), ({"mean": (0.4, 0.4, 0.4)}, "normalized")],
)
def test_different_preprocessing_in_a_torch_export_file(
    copied: Exported, run_check: Check, change: dict[str, object], stage: str
) -> None:
    add_program(copied, replace(copied.card, spec=replace(copied.card.spec, **change)))
    assert [run.departure for run in run_check(copied.subject(), "pt2").runtimes] == [stage]


def test_a_lone_model_is_checked_too(exported: Exported, run_check: Check) -> None:
    result = run_check(exported.subject(exported.folder / "model.onnx"))
    assert result.passed, result.failures
    ran = {run.name for run in result.runtimes if run.status == "passed"}
    assert ran == {"onnxruntime-cpu", "onnxruntime-unoptimized", "batch", "predictor"}


def test_unreadable_photos_are_reported_and_refused_by_the_predictor(
    exported: Exported, run_check: Check, with_broken_photos: Path
) -> None:
    result = run_check(
        exported.subject(), "predictor", "onnxruntime-cpu", images=with_broken_photos
    )
    assert result.passed, result.failures
    assert result.photos == 7
    assert set(result.unreadable) == {"cut.png", "text.jpg"}
    assert "not an image" in result.unreadable["text.jpg"]


def test_a_runtime_that_reads_what_the_reference_refuses_fails(
    exported: Exported, run_check: Check, with_broken_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lenient(Fake):
        decodes = True

        def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
            gray = Photo(Path(), "", Image.new("RGB", (9, 9), "gray"))
            return self._correct.run(
                [photo if isinstance(photo, Photo) else gray for photo in photos]
            )

    monkeypatch.setitem(RUNTIMES, "fake", Lenient)
    result = run_check(exported.subject(), "fake", images=with_broken_photos)
    assert [(run.status, run.departure) for run in result.runtimes] == [("failed", "decoded")]
    assert "the reference refuses it" in result.runtimes[0].reason


def test_nothing_to_compare_is_an_error(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="holds no photos"):
        find_photos(tmp_path)
    with pytest.raises(ParityError, match="no photos"):
        compare_runtimes(exported.subject(), [], tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(ParityError, match="None of the 1 photos can be read"):
        compare_runtimes(
            exported.subject(), [tmp_path / "broken.png"], tmp_path, runtimes=["onnxruntime-cpu"]
        )


def test_an_unknown_runtime_is_an_error_that_lists_the_known_ones(
    exported: Exported, run_check: Check
) -> None:
    with pytest.raises(ParityError, match=r"no runtime 'tflite'(.|\n)*onnxruntime-cpu"):
        run_check(exported.subject(), "tflite")


def test_a_network_that_answers_nan_is_a_failed_finding(
    exported: Exported, run_check: Check
) -> None:
    class Broken(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 4), torch.nan)

    result = run_check(replace(exported.subject(), network=Broken()), "onnxruntime-cpu")
    assert [name for name, _ in result.failures] == ["reference", "onnxruntime-cpu"]


def test_a_network_that_raises_is_an_error(exported: Exported, run_check: Check) -> None:
    class Raising(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise ValueError("wrong number of channels")

    with pytest.raises(ParityError, match="wrong number of channels"):
        run_check(replace(exported.subject(), network=Raising()), "onnxruntime-cpu")


def test_every_photo_is_read_once_in_bounded_chunks(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, found = find_photos(photos)
    paths = [photo.path for photo in found]
    monkeypatch.setattr("edgetl.parity.check_photos.CHUNK_PIXELS", 7000)
    chunks = list(read_chunks(paths * 3, root, SPEC))
    assert [photo.name for chunk in chunks for photo in chunk] == [
        p.relative_to(root).as_posix() for p in paths
    ] * 3
    assert all(len(chunk) <= CHUNK_PHOTOS for chunk in chunks)
    assert all(
        sum(photo.pixels.size // 3 for photo in chunk) <= 7000 for chunk in chunks if len(chunk) > 1
    )


def test_a_photo_too_thin_to_resize_is_unreadable(tmp_path: Path) -> None:
    Image.new("RGB", (1, 60_000)).save(tmp_path / "thin.png")
    shorter_side = PreprocessSpec(
        "shorter_side", 256, "bilinear", (224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    )
    ((photo,),) = read_chunks([tmp_path / "thin.png"], tmp_path, shorter_side)
    assert isinstance(photo, Unreadable)
    assert "60000" in photo.reason
    ((squashed,),) = read_chunks([tmp_path / "thin.png"], tmp_path, SPEC)
    assert isinstance(squashed, Photo)


def test_the_worker_cant_import_edgetl(exported: Exported) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['worker', {str(exported.folder / 'model.ts.pt')!r}, '.', '1']\n"
        f"runpy.run_path({fresh_worker.__file__!r}, run_name='__main__')\n"
        "try:\n    import edgetl\nexcept ImportError:\n    print('no edgetl here')\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], input="", capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "no edgetl here"


def test_a_worker_that_dies_is_a_failure_with_its_last_message(
    copied: Exported, run_check: Check
) -> None:
    (copied.folder / "model.ts.pt").write_bytes(b"no TorchScript at all")
    result = run_check(copied.subject(), "torchscript-fresh", "onnxruntime-cpu")
    failures = dict(result.failures)
    assert set(failures) == {"files", "torchscript-fresh"}
    assert failures["torchscript-fresh"].startswith("RuntimeError: the process ended: ")


def test_a_full_temporary_folder_is_an_error_not_a_failure(
    exported: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("1000 requested and 0 written")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(ParityError, match="1000 requested") as caught:
        run_check(exported.subject(), "torchscript-fresh", "onnxruntime-cpu")
    assert "TMPDIR" in str(caught.value.hint)


def test_a_worker_that_cant_write_is_an_error_not_a_failure(
    exported: Exported, run_check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A private method, since there is no other moment between the two sides' writing.
    plain = TorchScriptFresh._run_worker

    def ask(self: TorchScriptFresh, count: int) -> None:
        Path(self._folder.name, "0.logits.npy").mkdir()
        plain(self, count)

    monkeypatch.setattr(TorchScriptFresh, "_run_worker", ask)
    with pytest.raises(ParityError, match="Is a directory"):
        run_check(exported.subject(), "torchscript-fresh", "onnxruntime-cpu")


def test_the_worker_is_a_script_of_its_own() -> None:
    assert runpy.run_path(fresh_worker.__file__)["PREPROCESSING"] == fresh_worker.PREPROCESSING


def test_a_precision_without_a_tolerance_needs_one(exported: Exported, run_check: Check) -> None:
    subject = replace(exported.subject(), precision="fp8")
    with pytest.raises(ParityError, match="no default tolerance for precision 'fp8'"):
        run_check(subject, "onnxruntime-cpu")
    assert run_check(subject, "onnxruntime-cpu", tolerance=1e-3).passed


def test_beside_an_int8_model_the_float32_ones_keep_their_own_tolerance(
    copied: Exported, run_check: Check
) -> None:
    """The same weight moved in both files, by what int8 may cost and float may not."""
    tampering.tamper_with_onnx(copied.folder, copied.card.spec, partial(tampering.weight, by=5.0))
    network = copy.deepcopy(copied.network)
    with torch.no_grad():
        network.get_parameter("fc.weight").flatten()[7] += 5.0
    (copied.folder / "model.ts.pt").write_bytes(build_torchscript(network, copied.card))
    tampering.sign(copied.folder)
    result = run_check(
        replace(copied.subject(), precision="int8"), "torchscript", "onnxruntime-cpu"
    )
    assert {run.name: run.status for run in result.runtimes} == {
        "torchscript": "failed",
        "onnxruntime-cpu": "passed",
    }
    for run in result.runtimes:
        answers = run.stage("probabilities")
        assert answers is not None and 1e-3 < answers.worst.largest < 0.1


@pytest.fixture(scope="module")
def opened(exported: Exported) -> tuple[TorchReference | Runtime, ...]:
    """The network, and two runtimes of its bundle."""
    subject = exported.subject()
    reference = TorchReference(subject.network, subject.reference)
    return reference, OnnxRuntimeBatch(subject), RUNTIMES["torchscript"](subject)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 150)), min_size=1, max_size=3),
    repeats=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_any_sizes_in_any_batch_agree(
    opened: tuple[TorchReference | Runtime, ...],
    sizes: list[tuple[int, int]],
    repeats: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    photos = [
        Photo(Path(), "", Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)))
        for size in sizes
        for _ in range(repeats)
    ]
    expected, *others = (runtime.run(photos) for runtime in opened)
    for answers in others:
        for reference, found in zip(expected, answers, strict=True):
            assert isinstance(found, Stages)
            np.testing.assert_array_equal(found.resized, reference.resized)
            np.testing.assert_allclose(found.normalized, reference.normalized, atol=1e-6)
            np.testing.assert_allclose(found.probabilities, reference.probabilities, atol=1e-5)
