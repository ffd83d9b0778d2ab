"""``edgetl explain``: the map of a bundle and of a run, and what can't be explained."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from helpers.pictures import photo
from PIL import Image

import edgetl
from edgetl.cli.main import command as program
from edgetl.errors import BundleError
from edgetl.evaluation.evaluation_reports import as_html
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import EVIDENCE
from edgetl.training.config.run_folder import BEST
from edgetl.training.models import checkpoint
from edgetl.training.models.backbones import build
from edgetl.training.models.checkpoint import Trained
from edgetl.training.models.multi_level import find_levels, with_levels

LABELS = ("cat", "dog", "花")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["explain", *map(str, arguments)])


def write_run(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    backbone = build(name, len(LABELS), weights="none")
    backbone = with_levels(backbone, find_levels(backbone))
    folder.mkdir()
    card = ModelCard(LABELS, backbone.spec, name, temperature=0.5)
    checkpoint.save(Trained(backbone.module.eval(), card, {}, backbone.levels), folder / BEST)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its bundle with maps in ``mapped``, one without in ``plain``, and a photo."""
    folder = tmp_path_factory.mktemp("explain")
    write_run(folder / "run", "timm/test_resnet")
    for name, maps in (("mapped", True), ("plain", False)):
        edgetl.export(folder / "run", folder / name, golden=0, format="onnx", maps=maps)
    photo(0, 300, 200).save(folder / "photo.jpg")
    return folder


def test_a_bundle_and_its_run_look_at_the_same_places(folder, tmp_path):
    pictures = []
    for model in ("mapped", "run"):
        out = tmp_path / f"{model}.png"
        result = run(folder / model, folder / "photo.jpg", "-o", out)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"{out}: ")
        assert result.stdout.endswith("%, class activation map, exact\n")
        with Image.open(out) as picture:
            pictures.append(np.asarray(picture, np.int16))
    assert abs(pictures[0] - pictures[1]).max() <= 2
    assert pictures[0].std() > 20


def test_the_predictor_gives_the_evidence_when_it_is_asked(folder):
    predictor = edgetl.Predictor(folder / "mapped")
    assert predictor(folder / "photo.jpg").evidence is None
    prediction = predictor.explain(folder / "photo.jpg")
    evidence = prediction.evidence
    assert evidence is not None and evidence.shape[0] == len(LABELS)
    trained = checkpoint.load(folder / "run")
    bias = trained.network.get_submodule("fc.linear").bias.detach().numpy()
    np.testing.assert_allclose(evidence.sum((1, 2)) + bias, prediction.logits, atol=1e-5)
    relative = sum(prediction.evidence_for(label) for label in LABELS)
    np.testing.assert_allclose(relative, 0, atol=1e-6)


def test_its_sessions_for_predictions_leave_the_evidence_out(folder):
    """onnxruntime computes every output of a graph in every run."""
    predictor = edgetl.Predictor(folder / "mapped")
    outputs = [value.name for value in predictor._sessions.get(None).get_outputs()]
    assert outputs == ["logits", "probabilities"]


def test_another_label_has_another_map(folder, tmp_path):
    pictures = []
    for label in LABELS:
        out = tmp_path / "map.png"
        result = run(folder / "mapped", folder / "photo.jpg", "-o", out, "--label", label)
        assert result.exit_code == 0 and f": {label} " in result.stdout
        pictures.append(out.read_bytes())
    assert len(set(pictures)) == len(LABELS)


def test_a_bundle_without_maps_says_how_to_get_them(folder, tmp_path):
    result = run(folder / "plain", folder / "photo.jpg", "-o", tmp_path / "map.png")
    assert result.exit_code == 1
    assert "it has no evidence maps" in result.stderr
    assert "edgetl export" in result.stderr and "--maps" in result.stderr
    assert not (tmp_path / "map.png").exists()
    with pytest.raises(ValueError, match=r"predictor\.explain"):
        edgetl.Predictor(folder / "plain")(folder / "photo.jpg").evidence_for("cat")
    with pytest.raises(BundleError, match="no evidence maps"):
        edgetl.Predictor(folder / "plain/model.onnx").explain(folder / "photo.jpg")


def test_an_evaluation_shows_the_map_beside_its_mistakes(folder, tmp_path):
    answer = edgetl.Predictor(folder / "mapped")(folder / "photo.jpg").label
    wrong = next(label for label in LABELS if label != answer)
    for label in (wrong, answer):
        (tmp_path / "test" / label).mkdir(parents=True)
        shutil.copy(folder / "photo.jpg", tmp_path / "test" / label)
    for model, maps in (("mapped", 1), ("plain", 0)):
        page = as_html(edgetl.evaluate(folder / model, tmp_path / "test"))
        assert page.count('alt="what speaks for') == maps


def test_an_evaluation_gives_the_evidence_for_any_label(folder, tmp_path):
    predictor, path = edgetl.Predictor(folder / "mapped"), folder / "photo.jpg"
    (tmp_path / "cat").mkdir()
    shutil.copy(path, tmp_path / "cat")
    evidence = edgetl.evaluate(folder / "mapped", tmp_path).evidence
    *found, missing = evidence([*((path, label) for label in LABELS), (tmp_path / "gone", "cat")])
    expected = [predictor.explain(path).evidence_for(label) for label in LABELS]
    np.testing.assert_array_equal(found, expected)
    assert missing is None


def test_evidence_that_is_not_finite_is_an_error(folder, monkeypatch):
    predictor = edgetl.Predictor(folder / "mapped")
    usual = predictor._run

    def damaged(session, names, images):
        values = usual(session, names, images)
        return [value * np.nan for value in values] if EVIDENCE in names else values

    monkeypatch.setattr(predictor, "_run", damaged)
    with pytest.raises(BundleError, match="not one map of numbers for each label"):
        predictor.explain(folder / "photo.jpg")


def test_a_network_without_maps_is_explained_by_occlusion(folder, tmp_path):
    other = write_run(tmp_path / "vit", "timm/test_vit")
    result = run(other, folder / "photo.jpg", "-o", tmp_path / "map.png")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("%, occlusion, by captum\n")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.width > 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "map.jpg"], "name it map.png"),
        (["-o", "map.png", "--label", "cta"], "Did you mean 'cat'?"),
        (["-o", "no/such/folder/map.png"], "can't be written"),
    ],
)
def test_mistakes_are_named(folder, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = run(folder / "mapped", folder / "photo.jpg", *arguments)
    assert result.exit_code != 0 and message in result.stderr


def test_a_bundle_is_explained_without_torch(folder, tmp_path):
    arguments = ["explain", str(folder / "mapped"), str(folder / "photo.jpg"), "-o"]
    code = (
        "import sys; from edgetl.cli.main import command; "
        f"command({[*arguments, str(tmp_path / 'map.png')]}, standalone_mode=False); "
        "assert not {'torch', 'edgetl.training', 'edgetl.data'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
