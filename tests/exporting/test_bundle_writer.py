"""What a bundle holds, and what an export never replaces or puts in place."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.tiny_network import (
    scored_card,
    tapped_network,
    tiny_card,
    tiny_detector,
    tiny_network,
)
from torch import nn

from edgetl import Predictor
from edgetl.errors import BundleError, ExportError
from edgetl.exporting import bundle_writer
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.formats.deployed_classifier import (
    STAGE_TENSORS,
    DeployedClassifier,
    ScoredClassifier,
)
from edgetl.exporting.verification import ExportedModel, Outputs, verify
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.decode import read_image


def photos(folder: Path, count: int = 3) -> list[Path]:
    return sorted(folder.iterdir())[:count]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    (folder / "best.safetensors").write_bytes(b"weights")
    return export_bundle(
        Deployment(tiny_network(), tiny_card()),
        folder / "bundles/tiny",
        golden=photos(photo_folder),
        checkpoint=folder / "best.safetensors",
    ).folder


def test_every_file_is_in_the_manifest_with_its_checksum(exported: Path) -> None:
    bundle = Bundle.open(exported)
    present = {
        path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()
    }
    assert present == {*bundle.manifest["files"], "manifest.json"}
    assert {
        "model.onnx",
        "model.ts.pt",
        "golden/000.jpg",
        "golden/001.png",
        "golden/002.jpg",
    } < present
    assert bundle.damage() == []


def test_the_manifest_says_where_it_came_from(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["name"] == "tiny"
    assert manifest["models"] == {"fp32": "model.onnx"}
    assert manifest["opset"] == {"fp32": 12}
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["checkpoint"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert (exported / manifest["checkpoint"]["path"]).resolve() == exported.parents[
        1
    ] / "best.safetensors"


def test_golden_answers_are_the_trained_networks(exported: Path, photo_folder: Path) -> None:
    classifier = DeployedClassifier(tiny_network(), tiny_card())
    for golden, path in zip(Bundle.open(exported).golden, photos(photo_folder), strict=True):
        assert (exported / golden.file).read_bytes() == path.read_bytes()
        assert golden.source == f"{path.parent.name}/{path.name}"
        with torch.inference_mode():
            images = torch.from_numpy(np.asarray(read_image(path)).copy())[None]
            resized, _, logits, probabilities = classifier.stages(images)
        assert golden.resized_sha256 == hashlib.sha256(resized.numpy().tobytes()).hexdigest()
        assert golden.decoded_sha256 == hashlib.sha256(images.numpy().tobytes()).hexdigest()
        assert list(golden.answer.logits) == logits[0].tolist()
        assert list(golden.answer.probabilities) == probabilities[0].tolist()


def test_the_predictor_answers_as_the_trained_network(exported: Path) -> None:
    predictor, alone = Predictor(exported), Predictor(exported / "model.onnx")
    for golden in Bundle.open(exported).golden:
        for prediction in (predictor(exported / golden.file), alone(exported / golden.file)):
            np.testing.assert_allclose(
                prediction.probabilities, golden.answer.probabilities, atol=1e-5
            )


def test_damage_to_a_copy_of_the_model_alone_is_detected(exported: Path, tmp_path: Path) -> None:
    lone = Path(shutil.copy(exported / "model.onnx", tmp_path))
    onnx.checker.check_model(str(lone), full_check=True)
    content = lone.read_bytes()
    for position in range(0, len(content), len(content) // 20):
        lone.write_bytes(
            content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
        )
        with pytest.raises(BundleError, match="it is damaged"):
            Predictor(lone)


def test_the_same_network_gives_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    again = export_bundle(
        Deployment(tiny_network(), tiny_card()), tmp_path / "b", golden=[], formats=("onnx",)
    )
    assert (again.folder / "model.onnx").read_bytes() == (exported / "model.onnx").read_bytes()


def test_a_second_export_replaces_the_first(tmp_path: Path, photo_folder: Path) -> None:
    export_bundle(
        Deployment(tiny_network(), tiny_card()), tmp_path / "b", golden=photos(photo_folder)
    )
    export_bundle(
        Deployment(tiny_network(), tiny_card()), tmp_path / "b", golden=[], formats=("onnx",)
    )
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"model.onnx", "manifest.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    "content", [{"notes.txt": "mine"}, {"manifest.json": '{"name": "a web page"}'}]
)
def test_a_folder_that_is_not_a_bundle_is_left_unchanged(
    tmp_path: Path, content: dict[str, str]
) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ExportError, match="is not a bundle"):
        export_bundle(Deployment(tiny_network(), tiny_card()), tmp_path, golden=[])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == content


def test_a_place_that_can_not_be_written_is_found_before_the_work(
    tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetl.exporting.bundle_writer.deployed", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="can't be written: Not a directory"):
        export_bundle(
            Deployment(tiny_network(), tiny_card()),
            tmp_path / "file/deep/bundle",
            golden=photos(photo_folder),
        )


def test_the_path_of_a_checkpoint_on_another_drive_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, there is no relative path from C: to D:."""

    def fail(*_: object) -> str:
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    monkeypatch.setattr("os.path.relpath", fail)
    checkpoint = tmp_path / "best.safetensors"
    export_bundle(
        Deployment(tiny_network(), tiny_card()),
        tmp_path / "b",
        golden=[],
        formats=[],
        checkpoint=checkpoint,
        checkpoint_sha256="ab",
    )
    manifest = Bundle.open(tmp_path / "b").manifest
    assert manifest["checkpoint"] == {"path": checkpoint.as_posix(), "sha256": "ab"}


def test_a_file_that_someone_put_into_a_bundle_is_not_lost(tmp_path: Path) -> None:
    export_bundle(
        Deployment(tiny_network(), tiny_card()), tmp_path / "b", golden=[], formats=("onnx",)
    )
    (tmp_path / "b/notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"notes\.txt"):
        export_bundle(Deployment(tiny_network(), tiny_card()), tmp_path / "b", golden=[])
    assert (tmp_path / "b/notes.txt").read_text() == "mine"


def test_an_unreadable_golden_photo_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ExportError, match=r"golden photo .*broken\.jpg"):
        export_bundle(
            Deployment(tiny_network(), tiny_card()),
            tmp_path / "b",
            golden=[tmp_path / "broken.jpg"],
        )
    assert not (tmp_path / "b").exists()


def test_a_network_whose_answers_are_nan_is_not_exported(tmp_path: Path) -> None:
    network = tiny_network()
    with torch.no_grad():
        network.head.bias[1] = float("nan")
    with pytest.raises(ExportError, match="not finite"):
        export_bundle(Deployment(network, tiny_card()), tmp_path / "b", golden=[])


def test_an_export_with_other_answers_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo_folder: Path
) -> None:
    export = bundle_writer.export_network
    monkeypatch.setattr(
        bundle_writer,
        "export_network",
        lambda _, spec, opset: export(tiny_network(seed=1), spec, opset),
    )
    with pytest.raises(ExportError, match="ONNX model does not give the trained network's answers"):
        export_bundle(
            Deployment(tiny_network(), tiny_card()), tmp_path / "b", golden=photos(photo_folder)
        )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_put_there_during_the_export_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = bundle_writer.build_torchscript

    def slow_build(network: nn.Module, card: ModelCard, _: object) -> bytes:
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "mine.txt").write_text("mine")
        return build(network, card)

    monkeypatch.setattr(bundle_writer, "build_torchscript", slow_build)
    with pytest.raises(ExportError, match="is not a bundle"):
        export_bundle(Deployment(tiny_network(), tiny_card()), tmp_path / "b", golden=())
    assert (tmp_path / "b" / "mine.txt").read_text() == "mine"


def test_the_current_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="is the current folder"):
        export_bundle(Deployment(tiny_network(), tiny_card()), ".", golden=())


def test_a_full_folder_for_temporary_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.onnx.export", full)
    with pytest.raises(ExportError, match="No space left") as caught:
        export_bundle(Deployment(tiny_network(), tiny_card()), tmp_path / "b", golden=())
    assert "TMPDIR" in str(caught.value.hint)


@pytest.mark.parametrize("photos", [1, 2])
@pytest.mark.parametrize("stage", ["resized", "probabilities", "nan", "ood_score", "embedding"])
def test_verification_names_the_stage_and_the_photo(stage: str, photos: int) -> None:
    """Also if the model is wrong only for one photo alone, or only for a batch."""
    classifier = ScoredClassifier(tapped_network(), scored_card(), tiny_detector())
    references = bundle_writer.synthetic_references(classifier)

    def broken(images: np.ndarray) -> Outputs:
        with torch.inference_mode():
            stages = zip(STAGE_TENSORS, classifier.stages(torch.from_numpy(images)), strict=True)
        outputs = {name: rows.numpy() for name, rows in stages}
        if len(images) != photos:
            pass
        elif stage == "resized":
            outputs["resized"][0, 0, 0, 0] ^= 1
        else:
            outputs["probabilities" if stage == "nan" else stage][0] += (
                np.nan if stage == "nan" else 2e-2
            )
        return outputs

    model: ExportedModel = broken
    expected = {
        "resized": "resized pixels differ",
        "nan": "an answer is not finite",
        "ood_score": "its ood_score differs",
        "embedding": "its embedding differs",
        "probabilities": "a probability differs",
    }[stage]
    with pytest.raises(ExportError, match=f"{expected}.* on noise 48×64"):
        verify("broken", model, references, sensitivity=tiny_detector().sensitivity)


def test_verification_detects_outputs_that_depend_on_batch_composition() -> None:
    classifier = DeployedClassifier(tiny_network(), tiny_card())

    def mixed(images: np.ndarray) -> Outputs:
        with torch.inference_mode():
            stages = zip(STAGE_TENSORS, classifier.stages(torch.from_numpy(images)), strict=False)
        outputs = {name: rows.numpy() for name, rows in stages}
        for name in ("logits", "probabilities"):
            outputs[name] = np.broadcast_to(outputs[name].mean(0), outputs[name].shape)
        return outputs

    with pytest.raises(ExportError, match="a probability differs"):
        verify("mixed", mixed, bundle_writer.synthetic_references(classifier))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_export_killed_at_any_moment_leaves_the_old_bundle_or_the_new_one(
    tmp_path: Path, photo_folder: Path
) -> None:
    bundle = tmp_path / "out" / "bundle"

    def write(golden: int) -> None:
        torch.set_num_threads(1)  # a forked process has lost the others
        export_bundle(
            Deployment(tiny_network(), tiny_card()),
            bundle,
            golden=photos(photo_folder, golden),
            formats=["onnx"],
            web=True,
        )

    def start() -> multiprocessing.process.BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=write, args=(2,))
        process.start()
        return process

    def timeless_files() -> dict[str, object]:
        says_when = {"web/manifest.json", "web/package.json", "web/service-worker.js"}
        files = Bundle.open(bundle).manifest["files"]
        return {name: entry for name, entry in files.items() if name not in says_when}

    write(1)
    old = timeless_files()
    started = time.monotonic()
    start().join()
    seconds = time.monotonic() - started
    assert len(Bundle.open(bundle).golden) == 2
    killed = 0
    for number in range(12):
        process = start()
        process.join(seconds * (number + 0.5) / 12)
        killed += process.is_alive()
        process.kill()
        process.join()
        assert Bundle.open(bundle).damage() == []
        assert len(Bundle.open(bundle).golden) in (1, 2)
        if number % 2:
            write(1)
    assert killed >= 6
    write(1)
    assert timeless_files() == old
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
