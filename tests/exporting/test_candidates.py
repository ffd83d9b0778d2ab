"""Untrained models, written without their weights and measured with others."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from helpers import device_profiles, tiny_bundle, tiny_candidates
from onnx import numpy_helper

from edgetl import BundleError, EdgetlError, ExportError, Predictor, TrainingError
from edgetl.cli.main import command as program
from edgetl.exporting.candidates import write_candidates
from edgetl.runtime.bundle.candidates_file import read_candidates_file, write_candidates_file
from edgetl.runtime.bundle.embedded_checksum import CHECKSUM_KEY
from edgetl.runtime.inference.device_profile import read_profile
from edgetl.training.config.candidate_names import CandidateName, parse_candidate, parse_candidates


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_candidates.write(tmp_path_factory.mktemp("candidates") / "candidates.zip")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real network, as the command writes it."""
    path = tmp_path_factory.mktemp("small") / "small.zip"
    done = run("candidates", "-o", path, "timm/test_resnet@32")
    assert done.exit_code == 0, done.output
    assert "2 models" in done.stdout and f"edgetl bench {path} --profile" in done.stdout
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, [*map(str, arguments)])


def tensors(model: onnx.ModelProto) -> Iterator[tuple[str, np.ndarray]]:
    for tensor in model.graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)


def test_only_the_weights_differ(file: Path) -> None:
    original = onnx.load_from_string(tiny_bundle.onnx_bytes(tiny_bundle.card()))
    for candidate in read_candidates_file(file):
        content = candidate.model()
        assert content == candidate.model()
        assert len(candidate.rest) < len(content) / 2
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model, full_check=True)
        for (name, before), (same_name, after) in zip(
            tensors(original), tensors(model), strict=True
        ):
            assert (name, before.shape, before.dtype) == (same_name, after.shape, after.dtype)
            assert (name == "weights") != np.array_equal(before, after)
            if name == "weights":
                assert before.min() <= after.min() and after.max() <= before.max()
                assert after.std() == pytest.approx(before.std(), rel=0.1)
        assert [prop.key for prop in model.metadata_props] == ["edgetl", CHECKSUM_KEY]


def test_a_real_network_in_both_precisions(small: Path, tmp_path: Path) -> None:
    fp32, int8 = read_candidates_file(small)
    assert [(c.backbone, c.image_size) for c in (fp32, int8)] == [("timm/test_resnet", 32)] * 2
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert {drawn.dtype for drawn in fp32.weights} == {"<f4"}
    assert "|i1" in {drawn.dtype for drawn in int8.weights}
    assert len(int8.model()) < len(fp32.model())
    for candidate in (fp32, int8):
        (tmp_path / "model.onnx").write_bytes(candidate.model())
        answer = Predictor(tmp_path / "model.onnx")(np.zeros((40, 50, 3), np.uint8))
        assert len(answer.labels) == 10 and np.isfinite(answer.logits).all()


def test_bench_measures_each_and_writes_the_profile(file: Path, tmp_path: Path) -> None:
    profile = tmp_path / "device.json"
    done = run("bench", file, "--profile", profile, "--runs", 2, "--threads", 1)
    assert done.exit_code == 0, done.output
    assert "tiny@8 fp32" in done.stdout and "tiny@16 fp32" in done.stdout
    assert f"--profile {profile}" in done.stdout
    found = read_profile(profile)
    assert [model.name for model in found.models] == ["tiny@8 fp32", "tiny@16 fp32"]
    for model, candidate in zip(found.models, read_candidates_file(file), strict=True):
        assert model.model_ms > 0 and model.total_ms > 0
        assert model.bytes == len(candidate.model())
        assert model.memory and 10e6 < model.memory < 1e9
    assert found.machine["provider"] == "CPUExecutionProvider"
    assert found.threads == 1


def test_bench_prints_json_and_takes_photos(file: Path, photo_folder: Path) -> None:
    done = run("bench", file, "--images", photo_folder, "--runs", 1, "--json")
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["photos"] == f"{len(list(photo_folder.iterdir()))} of your own"
    assert [model["image_size"] for model in values["models"]] == [8, 16]


def test_bench_refuses_what_has_no_effect(file: Path, tiny_bundle: Path) -> None:
    assert "--profile is for" in run("bench", tiny_bundle, "--profile", "p.json").stderr
    assert "holds no int8 model" in run("bench", file, "--precision", "int8").stderr


def test_damaged_files_are_refused(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zip"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    copy.write_bytes(content)
    assert run("bench", copy).exit_code == 1
    with pytest.raises(BundleError, match="damaged"):
        read_candidates_file(copy)
    with zipfile.ZipFile(copy, "w") as archive:
        archive.writestr("other.txt", "")
    with pytest.raises(BundleError, match="not a file of candidates"):
        read_candidates_file(copy)


@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "|O"},
        *({"size": size} for size in (1 << 40, -1, 1.5, "1")),
        *({"position": position} for position in (-1, 1 << 40, 0.5, None)),
        {"mean": float("nan")},
        {"std": "1"},
        {"std": 1e300},
        {"high": float("inf")},
    ],
)
def test_weights_that_cant_be_drawn_are_refused(changed: dict, tmp_path: Path) -> None:
    first, *_ = tiny_candidates.candidates()
    first.weights[0] = first.weights[0]._replace(**changed)
    write_candidates_file(tmp_path / "bad.zip", [first])
    with pytest.raises(BundleError, match="not a file of candidates"):
        read_candidates_file(tmp_path / "bad.zip")


@pytest.mark.parametrize("bomb", ["candidates.json", "000.onnx"])
def test_an_archive_of_zeros_is_refused_before_it_is_read(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_MAX_INDEX", "_MAX_RESTS"):
        monkeypatch.setattr(f"edgetl.runtime.bundle.candidates_file.{limit}", 100_000)
    entry = {"file": "000.onnx", "weights": []}
    index = json.dumps({"schema": 1, "candidates": [entry] * 2}).encode()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("candidates.json", index + b" " * 100_000 * (bomb != "000.onnx"))
        archive.writestr("000.onnx", bytes(60_000))  # of each model
    with pytest.raises(BundleError, match="too large"):
        read_candidates_file(tmp_path / "bomb.zip")


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone": ["a"]},
        {"precision": None},
        {"image_size": 224.5},
        {"total_ms": 10**400},
        {"model_ms": float("nan")},
        {"memory": "1"},
        {"bytes": -1},
        {"class_bytes": "1"},
        {"class_bytes": float("nan")},
        {"unknown": 1},
    ],
)
def test_a_profile_with_other_figures_is_refused(changed: dict, tmp_path: Path) -> None:
    file = Path(device_profiles.write(tmp_path / "p.json", device_profiles.model(32, 5.0)))
    values = json.loads(file.read_text())
    assert read_profile(file).models[0].total_ms == 5.0
    values["models"][0] |= changed
    file.write_text(json.dumps(values))
    with pytest.raises(EdgetlError, match="not the profile of a device"):
        read_profile(file)


@pytest.mark.parametrize("changed", [{"models": []}, {"machine": {}}, {"machine": ["processor"]}])
def test_a_profile_needs_models_and_a_machine(changed: dict, tmp_path: Path) -> None:
    file = Path(device_profiles.write(tmp_path / "p.json", device_profiles.model(32, 5.0)))
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(EdgetlError, match="not the profile of a device"):
        read_profile(file)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "machine": {}, "models": [{}]}']
)
def test_other_files_are_no_profiles(content: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(EdgetlError, match="not the profile of a device"):
        read_profile(tmp_path / "p.json")
    with pytest.raises(EdgetlError, match="can't be read"):
        read_profile(tmp_path / "missing.json")


def test_names_of_candidates() -> None:
    assert parse_candidates("resnet18, timm/test_vit@160") == (
        CandidateName("resnet18", 0),
        CandidateName("timm/test_vit", 160),
    )
    assert parse_candidates("") == ()
    assert [str(name) for name in parse_candidates("a,b@32")] == ["a", "b@32"]
    assert CandidateName("a", 0).covers("a", 32) and CandidateName("a", 32).covers("a", 32)
    assert not CandidateName("a", 64).covers("a", 32) and not CandidateName("a").covers("b", 32)
    for wrong in ("", "@32", "a@", "a@0", "a@b", "a@-3"):
        with pytest.raises(TrainingError, match="names no candidate"):
            parse_candidate(wrong)


def test_what_cant_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no backbone 'resnet17'"):
        write_candidates(tmp_path / "c.zip", [CandidateName("resnet17")])
    with pytest.raises(ExportError, match=r"nowhere/c\.zip can't be written"):
        write_candidates(tmp_path / "nowhere/c.zip", [CandidateName("timm/test_resnet", 32)])
