"""From an export to a drift: the graph's embeddings and scores, fresh and collected."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers.corruptions import CORRUPTIONS
from helpers.pictures import photo
from helpers.tiny_network import scored_card, tapped_network, tiny_detector

from edgetl import Predictor, drift
from edgetl.cli.main import command as program
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.runtime.bundle.held_out import HeldOut


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, list(map(str, arguments)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the model's own answers for sixty photos, all of them right, as held-out ones."""
    folder = tmp_path_factory.mktemp("exports")
    detector = tiny_detector()
    parts = {"formats": ("onnx",), "golden": []}
    first = export_bundle(
        Deployment(tapped_network(), scored_card(), detector), folder / "first", **parts
    ).folder
    found = list(Predictor(first).batch(photo(seed) for seed in range(60)))
    known = HeldOut(
        np.array([answer.index for answer in found], np.int32),
        np.stack([answer.logits for answer in found]),
        np.stack([answer.embedding for answer in found]).astype(np.float16),
        np.array([answer.ood_score for answer in found], np.float32),
    )
    card = scored_card()
    return export_bundle(
        Deployment(tapped_network(), card, detector, known), folder / "b", **parts
    ).folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photos of the same kind, and forty darker ones."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("same", "dark"):
        (folder / name).mkdir()
        for seed in range(40):
            picture = photo(1000 + seed)
            picture = CORRUPTIONS["darkness"](picture, rng) if name == "dark" else picture
            picture.save(folder / name / f"{seed:02}.png")
    return folder


def test_darker_photos_are_a_drift_and_others_are_not(bundle, photos):
    assert run("drift", bundle, photos / "same").exit_code == 0
    done = run("drift", bundle, photos / "dark", "--json")
    assert done.exit_code == 1
    assert Path(json.loads(done.stdout)["photos"][0]["file"]).parent == photos / "dark"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_collected_answers_give_the_same_figures(suffix, bundle, photos, tmp_path):
    out = tmp_path / f"answers.{suffix}"
    done = run("predict", bundle, photos / "dark", "--out", out, "--embeddings")
    assert done.exit_code == 0, done.output
    fresh, collected = drift(bundle, photos / "dark"), drift(bundle, out)
    assert collected.drifted and collected.answers.names == fresh.answers.names
    first, second = fresh.comparison, collected.comparison
    assert (first.p_value, first.mix_p_value) == (second.p_value, second.mix_p_value)
    assert first.accuracy.value == pytest.approx(second.accuracy.value, abs=1e-6)


def test_the_photos_kept_for_labelling_are_those_with_the_highest_scores(bundle, photos, tmp_path):
    done = run("predict", bundle, photos, "--keep-doubtful", tmp_path / "kept", 5)
    assert done.exit_code == 0, done.output
    (file,) = (tmp_path / "kept").glob("*/answers.jsonl")
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    scores = [answer.ood_score for answer in Predictor(bundle).batch(sorted(photos.rglob("*.png")))]
    assert [row["doubt"] for row in rows] == pytest.approx(sorted(scores, reverse=True)[:5])
