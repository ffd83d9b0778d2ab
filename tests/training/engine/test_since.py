"""``since``: what changed between an earlier run and this one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.pictures import COLOURS, write_photo
from helpers.training_runs import Notebook, context_of, equal, signal_in_step, weights_of
from safetensors.torch import save_file

from edgetl.cli.main import command as program
from edgetl.data.image_folder import read_sample, scan
from edgetl.errors import CheckpointError, TrainingError
from edgetl.runtime.images.resize import normalize, resize_image
from edgetl.training.config.earlier_run import EarlierAnswer, read_earlier_run
from edgetl.training.config.recipes import resolve
from edgetl.training.engine.earlier_answers import ask_earlier_run
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.engine.train_run import train
from edgetl.training.head import cross_validation
from edgetl.training.importing.import_run import import_network
from edgetl.training.models import checkpoint
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build

TINY = {"backbone": "timm/small_backbone", "weights": "none", "device": "cpu", "workers": 1}
EPOCHS = {**TINY, "strategy": "full", "image_size": 32, "batch_size": 4, "warm_head": False}
OLD = EarlierAnswer("", 0.0, False)
SPREAD = {"ash": (97, 90, 90), "brick": (100, 90, 90), "clover": (90, 110, 90)}


def add(data: Path, part: str, label: str, numbers: range) -> None:
    """Photos that a head on random features can't tell apart well, so that some answers flip."""
    for number in numbers:
        seed = number + 1000 * list(COLOURS).index(label)
        write_photo(
            data / part / label / f"{number:03}.png", SPREAD.get(label, (90, 90, 120)), seed
        )


@pytest.fixture(scope="module", autouse=True)
def quick_runs() -> Iterator[None]:
    """What ``few_penalties`` and ``figures`` do for the runs that the tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_validation, "C_VALUES", (0.01, cross_validation.DEFAULT_C, 1.0))
        for name in ("line_plot", "calibration_plot"):
            patch.setattr(f"edgetl.evaluation.plots.{name}", lambda *_, **__: "<svg/>")
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with DATA of before and now, the run of before, and its cache.

    Before: ash, brick and clover. Now: no clover, but dusk; a photo of ash that was trained on is
    validated on; brick has new photos in both parts.
    """
    folder = tmp_path_factory.mktemp("since")
    before = folder / "before"
    for label in ("ash", "brick", "clover"):
        add(before, "train", label, range(12))
        add(before, "val", label, range(100, 110))
    train(before, folder / "old", feature_cache=folder / "cache", **TINY)
    now = shutil.copytree(before, folder / "now")
    for part in ("train", "val"):
        shutil.rmtree(now / part / "clover")
    (now / "train/ash/003.png").rename(now / "val/ash/renamed.png")
    add(now, "train", "brick", range(12, 20))
    add(now, "val", "brick", range(110, 114))
    add(now, "train", "dusk", range(12))
    add(now, "val", "dusk", range(100, 105))
    return folder


@pytest.fixture(scope="module")
def compared(runs: Path) -> TrainResult:
    """The run of now, from the cache of before."""
    cache = runs / "cache"
    return train(runs / "now", runs / "new", since=runs / "old", feature_cache=cache, **TINY)


def answers_in(run: Path) -> dict[str, tuple[str, str]]:
    """SHA-256 → (label, answer) of the validation photos of a run."""
    with (run / "validation.csv").open(encoding="utf-8", newline="") as file:
        return {row["sha256"]: (row["label"], row["answer"]) for row in csv.DictReader(file)}


def test_a_run_from_an_earlier_cache_has_the_bits_of_one_from_scratch(runs, compared, tmp_path):
    scratch = train(runs / "now", tmp_path / "run", feature_cache="off", **TINY)
    assert scratch.metrics == compared.metrics and scratch.since is None
    assert equal(weights_of(scratch.folder), weights_of(compared.folder))
    assert not (tmp_path / "run/since.json").exists()


def test_photos_are_compared_that_neither_run_was_fitted_to(runs, compared):
    found, old, new = compared.since, answers_in(runs / "old"), answers_in(runs / "new")
    assert found is not None
    shared = old.keys() & new.keys()
    assert found.validation.photos == len(shared) == 20
    for group, answers in ((found.validation.before, old), (found.validation.now, new)):
        assert group == pytest.approx(np.mean([len({*answers[key]}) == 1 for key in shared]))
    assert (found.validation.now - found.validation.before) * 20 == pytest.approx(
        found.validation.gained - found.validation.lost
    )
    assert found.new.photos == 8 + 4  # those to train on were judged by cross-validation
    assert found.left_out == 1  # which the earlier run was trained on
    assert (found.classes_added, found.classes_removed) == (("dusk",), ("clover",))
    assert (found.added.photos, found.added.before) == (12 + 5, 0.0)
    assert (found.photos_added, found.photos_removed) == (8 + 4 + 12 + 5, 12 + 10)


def asked(runs: Path, folder: Path) -> dict[str, EarlierAnswer]:
    """What the earlier run is found to answer for the validation photos of now."""
    settings = resolve(runs / "now", {**TINY, "feature_cache": "off"}, cuda=False)
    context = replace(context_of(settings, folder), since=read_earlier_run(runs / "old", folder))
    found = ask_earlier_run(context, scan(runs / "now"))
    assert found is not None
    return dict(found.answers)


def test_new_photos_are_classified_by_the_network_of_the_earlier_run(runs, tmp_path, monkeypatch):
    trained = checkpoint.load(runs / "old")
    spec, temperature = trained.card.spec, trained.card.temperature
    answers = asked(runs, tmp_path)
    photos = [sample for sample in scan(runs / "now").val if answers.get(sample.digest, OLD).is_new]
    assert len(photos) == 4 + 5
    for sample in photos:
        pixels = normalize(resize_image(read_sample(sample), spec)[None], spec)
        with torch.no_grad():
            logits = trained.network(torch.from_numpy(pixels))[0]
        confidence, answer = (logits / temperature).softmax(0).max(0)
        found = answers[sample.digest]
        assert found.label == trained.card.labels[int(answer)]
        assert found.confidence == pytest.approx(float(confidence), abs=1e-4)
    # A network whose head is more than one layer answers as a whole.
    monkeypatch.setattr(Backbone, "has_linear_head", False)
    whole = asked(runs, tmp_path)
    assert whole.keys() == answers.keys()
    for digest, found in answers.items():
        assert whole[digest].label == found.label
        assert whole[digest].confidence == pytest.approx(found.confidence, abs=1e-4)


def test_flipped_answers_come_with_the_new_mistakes_first(compared):
    flipped = compared.since.flipped
    assert len(flipped) == sum(
        group.lost + group.gained for group in (compared.since.validation, compared.since.new)
    )
    assert flipped and all(answer.is_flipped for answer in flipped)
    right = [answer.is_right for answer in flipped]
    assert right == sorted(right)
    for kind in (False, True):
        sure = [answer.mistake[1] for answer in flipped if answer.is_right == kind]
        assert sure == sorted(sure, reverse=True)


def test_the_report_and_a_file_show_it(runs, compared):
    page = (runs / "new/report.html").read_text("utf-8")
    section = page[page.index('id="since"') : page.index('id="mistakes"')]
    for said in (f"since {runs}/old", "dusk added", "clover removed"):
        assert said in section
    right = [answer.is_right for answer in compared.since.flipped]
    for kind, heading in ((False, "Right before, wrong now"), (True, "Wrong before, right now")):
        assert (f"{heading}: {right.count(kind)}" in section) == (kind in right)
    shown = min(right.count(False), 12) + min(right.count(True), 12)
    assert section.count("<img ") == shown > 0
    saved = json.loads((runs / "new/since.json").read_text("utf-8"))
    assert saved == json.loads(json.dumps(asdict(compared.since)))


def test_an_interrupted_run_is_compared_when_it_is_resumed(runs, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGINT)
        assert train(runs / "now", run, epochs=1, since=runs / "old", **EPOCHS).since is None
    found = train(resume=run, since=runs / "old").since
    assert found is not None and found.validation.photos == 20
    assert found.new.photos == 4  # without cross-validation, no photos to train on


def test_the_command_prints_it(runs, tmp_path):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    given = [runs / "now", "-o", tmp_path / "run", "--since", runs / "old"]
    result = CliRunner().invoke(
        program, ["train", *map(str, given), f"--feature-cache={runs / 'cache'}", *options]
    )
    assert result.exit_code == 0, result.output
    lines = result.output.split(f"Since {runs / 'old'}:\n")[1].splitlines()
    assert " of 20 photos (" in lines[0] and "that both validated on" in lines[0]
    assert " of 12 new photos (" in lines[1]
    assert lines[2].endswith("of 17 photos of added classes: dusk")
    assert lines[3:5] == [
        "  removed classes: clover",
        "  not compared: 1 validation photo, on which the earlier run was trained",
    ]
    refused = CliRunner().invoke(program, ["train", *map(str, given), "--find-lr"])
    assert refused.exit_code == 2 and "no effect with --find-lr" in refused.output


def test_a_run_that_can_not_be_compared_with_is_refused_before_training(runs, tmp_path):
    now, out = runs / "now", tmp_path / "run"
    broken = shutil.copytree(runs / "old", tmp_path / "broken")
    (broken / "validation.csv").write_text("file,label,answer,confidence\na,b,c,0.5\n")
    empty = shutil.copytree(runs / "old", tmp_path / "empty")
    (empty / "validation.csv").write_text("nothing\n")
    damaged = shutil.copytree(runs / "old", tmp_path / "damaged")
    os.truncate(damaged / "best.safetensors", 1000)
    unfinished = shutil.copytree(runs / "old", tmp_path / "unfinished")
    (unfinished / "metrics.json").unlink()
    foreign = build("timm/small_backbone", 3, weights="none").module.state_dict()
    save_file(foreign, tmp_path / "foreign.safetensors")
    import_network(
        tmp_path / "foreign.safetensors",
        ["ash", "brick", "clover"],
        backbone="timm/small_backbone",
        out=tmp_path / "imported",
    )
    for since, message in (
        (tmp_path / "nowhere", "There is no finished run in"),
        (now, "There is no finished run in"),
        (unfinished, "There is no finished run in"),
        (tmp_path / "imported", "holds an imported network"),
        (broken, "does not say which photos"),
        (empty, "does not say which photos"),
        (damaged, "best.safetensors can't be read as weights"),
        (out, "is the run that is to be written"),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(now, out, since=since, **TINY)
    others = tmp_path / "others"
    for label in ("moss", "rust"):
        for number in range(4):
            write_photo(others / label / f"{number}.png", (90, 90, 90), number)
    with pytest.raises(TrainingError, match="no class in common"):
        train(others, out, since=runs / "old", **TINY)
    assert not out.exists()


@pytest.mark.parametrize("row", ["no hex,0.5", "00,0.5", ",0.5", "D,nan", "D,2", "D,", "D"])
def test_damaged_answers_of_an_earlier_run_are_refused_before_training(runs, tmp_path, row):
    damaged = shutil.copytree(runs / "old", tmp_path / "damaged")
    text = f"sha256,confidence,answer\n{row.replace('D', 'ab' * 32)},ash\n"
    (damaged / "validation.csv").write_text(text)
    with pytest.raises(CheckpointError, match="does not say which photos"):
        read_earlier_run(damaged, tmp_path)


def test_an_earlier_run_that_can_not_be_read_any_more_costs_the_comparison_only(runs, tmp_path):
    old = shutil.copytree(runs / "old", tmp_path / "old")
    earlier, notebook = read_earlier_run(old, tmp_path), Notebook()
    (old / "best.safetensors").unlink()
    settings = resolve(runs / "now", TINY, cuda=False)
    context = replace(context_of(settings, tmp_path, notebook), since=earlier)
    assert ask_earlier_run(context, scan(runs / "now")) is None
    (note,) = notebook.notes
    assert note.startswith(f"Not compared with {old}: There is no checkpoint")
