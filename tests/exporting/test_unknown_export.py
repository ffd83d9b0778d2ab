"""A bundle that can tell unknown photos: its files, and what the device does with it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from helpers.pictures import photo
from helpers.small_backbone import SMALL_BACKBONE
from helpers.tiny_network import LABELS, scored_card, tapped_network, tiny_card, tiny_detector
from helpers.tiny_network import tiny_network as plain_network

import edgetl
from edgetl import Predictor
from edgetl.cli.main import command as program
from edgetl.errors import BundleError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment, deployment_of, deployment_warnings
from edgetl.exporting.export_result import AccuracyComparison, ExportResult
from edgetl.exporting.export_run import _agreement_warnings
from edgetl.exporting.formats.onnx_ood_score import write_ood_score
from edgetl.exporting.golden_photos import unknown_agreement
from edgetl.onnx_graph.graph_writer import GraphWriter
from edgetl.runtime.bundle.bundle_folder import Bundle, manifest_bytes
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.unknown_limits import UnknownLimits
from edgetl.training.models import backbones, checkpoint
from edgetl.training.models.checkpoint import Trained


def held_out(photos: int = 40) -> HeldOut:
    rng = np.random.default_rng(3)
    return HeldOut(
        labels=rng.integers(0, 3, photos).astype(np.int32),
        logits=rng.normal(size=(photos, 3)).astype(np.float32),
        embedding=rng.normal(size=(photos, 4)).astype(np.float16),
        ood_score=rng.permutation(photos).astype(np.float32),
    )


def trained(photos: int = 40) -> Trained:
    return Trained(
        plain_network(), tiny_card(), head="head", ood=tiny_detector(), held_out=held_out(photos)
    )


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    """A bundle whose threshold lies in the middle of its golden photos' scores."""
    photos = sorted(photo_folder.iterdir())
    folder = tmp_path_factory.mktemp("scored")
    detector = tiny_detector()
    parts = {"formats": ("onnx",), "golden": photos[:4]}
    first = export_bundle(
        Deployment(tapped_network(), scored_card(), detector), folder / "first", **parts
    ).folder
    threshold = float(np.median([golden.answer.ood_score for golden in Bundle.open(first).golden]))
    card = scored_card(threshold=threshold)
    return export_bundle(
        Deployment(tapped_network(), card, detector, held_out()), folder / "tiny", **parts
    ).folder


@pytest.fixture
def changed(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "changed"))


def predict(*arguments: str | Path) -> str:
    result = CliRunner().invoke(program, ["predict", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_prediction_has_score_and_embedding_and_says_whether_it_is_unknown(scored: Path) -> None:
    bundle, lone = Bundle.open(scored), Predictor(scored / "model.onnx")
    predictor = Predictor(scored)
    limits = bundle.card.unknown
    assert limits is not None
    photos = [scored / golden.file for golden in bundle.golden]
    for golden, one, many in zip(bundle.golden, photos, predictor.batch(photos), strict=True):
        for prediction in (predictor(one), lone(one), many):
            answer = golden.answer
            assert prediction.ood_score == pytest.approx(answer.ood_score, abs=1e-3)
            np.testing.assert_allclose(prediction.embedding, answer.embedding, atol=1e-5)
            assert prediction.is_unknown == (prediction.ood_score > limits.threshold)
            assert ("unknown" in repr(prediction)) == prediction.is_unknown
            record = prediction.to_dict()
            assert record["unknown"] is prediction.is_unknown
            assert record["ood_score"] == prediction.ood_score
    assert {predictor(photo).is_unknown for photo in photos} == {False, True}
    logits, probabilities = predictor.run_model(np.zeros((2, 31, 32, 3), np.uint8))
    assert logits.shape == probabilities.shape == (2, 3)


def test_the_bundle_names_its_schema_and_holds_the_held_out_answers(scored: Path) -> None:
    bundle = Bundle.open(scored)
    assert (bundle.manifest["schema"], bundle.manifest["requires_edgetl"]) == (2, "0.2.0")
    read = bundle.held_out()
    assert read is not None
    for name, rows in vars(held_out()).items():
        np.testing.assert_array_equal(getattr(read, name), rows)
        assert getattr(read, name).dtype == rows.dtype


def test_a_damaged_file_of_held_out_answers_is_named(changed: Path) -> None:
    content = bytearray((changed / "held_out.npz").read_bytes())
    content[60] ^= 1
    (changed / "held_out.npz").write_bytes(content)
    with pytest.raises(BundleError, match=r"held_out\.npz: it is damaged"):
        Bundle.open(changed).held_out()


def test_the_table_prints_unknown_with_the_nearest_label_in_brackets(scored: Path) -> None:
    lines = predict(scored, scored / "golden", "--top", "2").splitlines()
    predictions = [Predictor(scored)(photo) for photo in sorted((scored / "golden").iterdir())]
    assert len(lines) == 9
    for line, prediction in zip(lines[1::2], predictions, strict=True):
        assert ("unknown (" in line) == prediction.is_unknown
    assert not any("unknown (" in line for line in lines[2::2])
    assert "odd (" in predict(scored, scored / "golden", "--unknown-as", "odd")


@pytest.mark.parametrize("name", [None, "odd"])
def test_files_have_the_score_and_the_label_that_was_asked_for(
    scored: Path, tmp_path: Path, name: str | None
) -> None:
    options = [] if name is None else ["--unknown-as", name]
    expected = [Predictor(scored)(photo) for photo in sorted((scored / "golden").iterdir())]
    labels = [name if name and one.is_unknown else one.label for one in expected]
    rows = list(
        map(json.loads, predict(scored, scored / "golden", "--json", *options).split("\n")[:-1])
    )
    predict(scored, scored / "golden", "--out", tmp_path / "a.csv", *options)
    predict(scored, scored / "golden", "--out", tmp_path / "a.parquet", *options)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    parquet = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["label"] for row in rows] == labels
    assert [row["label"] for row in table] == labels
    assert [row["label"] for row in parquet] == labels
    assert [row["unknown"] for row in rows] == [one.is_unknown for one in expected]
    assert [row["unknown"] for row in table] == [str(one.is_unknown) for one in expected]
    assert [row["unknown"] for row in parquet] == [one.is_unknown for one in expected]
    for one, row, cells, values in zip(expected, rows, table, parquet, strict=True):
        for found in (row, cells, values):
            assert float(found["ood_score"]) == pytest.approx(one.ood_score, abs=1e-3)


def test_a_name_for_unknown_photos_that_says_nothing_is_refused(
    scored: Path, tiny_bundle: Path
) -> None:
    for bundle, name, message in (
        (scored, LABELS[0], "is a label of the model"),
        (scored, "", "is empty"),
        (tiny_bundle, "odd", "can't tell unknown photos"),
    ):
        result = CliRunner().invoke(
            program, ["predict", str(bundle), str(bundle / "golden"), "--unknown-as", name]
        )
        assert result.exit_code == 2
        assert message in result.output


def test_info_shows_the_threshold(scored: Path) -> None:
    result = CliRunner().invoke(program, ["info", str(scored)])
    assert "to keep 95% of known photos, by 100 held-out photos" in result.output


@pytest.mark.parametrize(
    ("name", "changes", "stage"),
    [
        ("nothing", {}, None),
        ("mean", {"mean": 0.02}, "embedding"),
        ("projection", {"projection": 0.02}, "embedding"),
        ("bank", {"centres": 0.1}, "ood_score"),
        ("spread", {"distance_std": 0.02}, "ood_score"),
    ],
)
def test_the_self_test_finds_a_changed_detector(
    changed: Path, tmp_path: Path, name: str, changes: dict[str, float], stage: str | None
) -> None:
    detector = tiny_detector()
    other = replace(
        detector,
        **{field: getattr(detector, field) + value for field, value in changes.items()},
    )
    card = Bundle.open(changed).card
    assert Predictor(changed).selftest().passed
    made = export_bundle(
        Deployment(tapped_network(), card, detector=other),
        tmp_path / "other",
        golden=[],
        formats=("onnx",),
    )
    shutil.copy(made.folder / "model.onnx", changed)
    manifest = json.loads((changed / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = json.loads((made.folder / "manifest.json").read_text())[
        "files"
    ]["model.onnx"]
    (changed / "manifest.json").write_bytes(manifest_bytes(manifest))
    outcome = Predictor(changed).selftest()
    assert (outcome.passed, outcome.stage) == (stage is None, stage), outcome.results


def test_a_threshold_that_only_one_card_has_is_refused(changed: Path) -> None:
    manifest = json.loads((changed / "manifest.json").read_text())
    manifest["card"]["unknown"]["threshold"] += 1
    (changed / "manifest.json").write_bytes(manifest_bytes(manifest))
    with pytest.raises(BundleError, match="model card in the ONNX file differs"):
        Predictor(changed)


def test_the_threshold_is_the_quantile_of_the_held_out_scores() -> None:
    deployment = deployment_of(trained(), keep_known=0.9)
    assert deployment.card.unknown == UnknownLimits(
        36.0, 0.9, tiny_detector().sensitivity, {"photos": 40}
    )
    assert list(deployment_warnings(deployment, Path("run"), asked=True)) == []
    run = trained()
    found = {"keep_known": 0.95, "held_out": 40, "left_out_classes": {"let_in": 0.5}}  # of 0.2.0
    run = replace(run, card=replace(run.card, metrics={"accuracy": 1.0, "unknown": found}))
    card = deployment_of(run).card
    assert card.unknown is not None and card.metrics == {"accuracy": 1.0}
    assert card.unknown.figures == {"photos": 40, "left_out_classes": {"let_in": 0.5}}
    assert deployment_of(run, unknown=False).card.metrics == {"accuracy": 1.0}
    (warning,) = deployment_warnings(deployment_of(trained(10)), Path("run"), asked=False)
    assert "takes the scores of 19 held-out photos, and the run has 10" in warning


def test_the_detector_takes_half_of_the_bytes() -> None:
    graph = GraphWriter("test")
    write_ood_score(graph, tiny_detector(1280, 128, 80), 12)
    stored = sum(len(tensor.raw_data) for tensor in graph.initializers.values())
    assert stored < 2 * 128 * (1280 + 80) + 4 * 1280 + 1000


def test_a_run_without_detector_is_exported_as_before() -> None:
    earlier = Trained(plain_network(), tiny_card(), head="head")
    deployment = deployment_of(earlier)
    assert deployment == Deployment(earlier.network, earlier.card)
    assert list(deployment_warnings(deployment, Path("run"), asked=False)) == []
    (warning,) = deployment_warnings(deployment, Path("run"), asked=True)
    assert "can't tell unknown photos" in warning
    run = trained()
    assert deployment_of(run, unknown=False) == Deployment(run.network, run.card)


def test_a_bundle_holds_the_answers_of_a_thousand_photos_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = deployment_of(trained(2500)).held_out
    assert some is not None
    assert len(some.labels) == 1000
    np.testing.assert_array_equal(some.logits[:2], held_out(2500).logits[[0, 2]])
    monkeypatch.setattr("edgetl.exporting.deployment._MOST_LOGITS", 300)
    some = deployment_of(trained(2500)).held_out
    assert some is not None and len(some.labels) == len(some.ood_score) == 100


def test_a_run_of_the_same_photo_over_and_over_has_no_file_of_held_out_answers() -> None:
    nothing = replace(trained(), ood=None, held_out=held_out(0))
    assert deployment_of(nothing) == Deployment(nothing.network, nothing.card)


def test_a_run_is_exported_with_its_score_and_agrees_with_its_checkpoint(tmp_path: Path) -> None:
    backbone = backbones.build(SMALL_BACKBONE, 3, weights="none")
    width = backbone.module.get_submodule(backbone.head).in_features
    card = replace(tiny_card(backbone.spec), backbone=SMALL_BACKBONE)
    run, bundle = tmp_path / "best.safetensors", tmp_path / "bundle"
    parts = {"ood": tiny_detector(width, 16, 5), "held_out": held_out()}
    checkpoint.save(Trained(backbone.module.eval(), card, **parts), run)
    edgetl.export(run, bundle, golden=0, format="onnx", keep_known=0.9)
    written = Bundle.open(bundle)
    assert written.card.unknown is not None
    assert written.card.unknown.threshold == 36.0
    photo(1, 60, 50).save(tmp_path / "photo.png")
    result = edgetl.check(bundle, tmp_path / "photo.png", runtime=["onnxruntime-cpu", "predictor"])
    assert result.passed, result.failures
    assert all(one.stage("ood_score") for one in result.runtimes)

    plain = edgetl.export(run, bundle, golden=0, format="onnx", unknown=False)
    assert set(plain.files) == {"model.onnx"}
    assert Bundle.open(bundle).manifest["schema"] == 1
    assert Predictor(bundle)(tmp_path / "photo.png").is_unknown is None
    assert edgetl.check(bundle, tmp_path / "photo.png", runtime="onnxruntime-cpu").passed
    with pytest.raises(ValueError, match="keep_known is 1"):
        edgetl.export(run, bundle, keep_known=1)


def test_a_precision_that_takes_other_photos_for_unknown_is_named() -> None:
    own = [1.0, 9.0, 9.0, 9.0]
    entries = [
        {"ood_score": score, "own_answers": {"int8": {"ood_score": other}}}
        for score, other in zip([1.0, 1.0, 2.0, 1.0], own, strict=True)
    ]
    card = scored_card(threshold=1.5)
    same = unknown_agreement(entries, "int8", card)
    assert same == 0.5
    assert (
        unknown_agreement([], "int8", card) is unknown_agreement(entries, "", tiny_card()) is None
    )
    compared = AccuracyComparison(9, 1.0, 1.0, 1.0, 0.0, {}, unknown_agreement=same)
    result = ExportResult(Path("out"), {}, {}, 4, {}, {"int8": compared})
    (warning,) = _agreement_warnings(result)
    assert warning.startswith("int8 judges 50% of the golden photos otherwise than fp32")
    fine = replace(result, precisions={"int8": replace(compared, unknown_agreement=0.9)})
    assert not list(_agreement_warnings(fine))
