"""Runs with a budget: which networks are within it, which of them is trained, what is said."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.device_profiles import TINY, model, write
from helpers.training_runs import SMALL, Notebook, signal_in_step

from edgetl import MissingDependencyError, TrainingError, TrainResult, train
from edgetl.data.image_folder import scan
from edgetl.exporting.candidates import write_candidates
from edgetl.training.config.model_trial import ModelTrial
from edgetl.training.config.recipes import resolve
from edgetl.training.config.run_folder import REPORT
from edgetl.training.engine import model_choice
from edgetl.training.engine.model_choice import best_of

HEAD = {"weights": "none", "device": "cpu", "feature_cache": "off", "strategy": "features"}


class Told(Notebook):
    """Records the steps, too."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: set[str] = set()

    def progress(self, step: str, done: int, total: int, /) -> None:
        self.steps.add(step)


def trained(data: Path, out: Path, **options: Any) -> TrainResult:
    return train(data, out, **{**HEAD, **options})


def tried(result: TrainResult) -> dict[str, bool]:
    return {
        f"{trial['backbone']}@{trial['image_size']} {trial['precision']}": trial["is_chosen"]
        for trial in result.metrics["candidates"]
    }


def test_the_run_goes_on_with_one_that_is_within_the_budget(
    two_parts: Path, tmp_path: Path
) -> None:
    profile = write(
        tmp_path / "device.json",
        model(32, 10.0),
        model(64, 20.0),
        model(96, 31.0),
        model(96, 30.0, precision="int8"),
        model(32, 99.0, backbone="resnet18"),
    )
    told = Told()
    result = trained(two_parts, tmp_path / "run", budget="30ms", profile=profile, progress=told)
    assert f"Trying {TINY} at 96 pixels" in told.steps
    assert tried(result).keys() == {f"{TINY}@32 fp32", f"{TINY}@64 fp32", f"{TINY}@96 int8"}
    (chosen,) = (trial for trial in result.metrics["candidates"] if trial["is_chosen"])
    assert result.settings.backbone == TINY
    assert result.settings.image_size == chosen["image_size"]
    assert result.settings.budget == "30ms"
    for trial in result.metrics["candidates"]:
        assert trial["photos"] == 16
        assert trial["interval"][0] <= trial["accuracy"] <= trial["interval"][1]
        assert trial["bytes"] == (300_000 if trial["precision"] == "int8" else 1_000_000) - 8000
    assert any(
        "Chosen among 3 candidates" in note and chosen["backbone"] in note for note in told.notes
    )
    page = (tmp_path / "run" / REPORT).read_text()
    assert page.count('<tr class="chosen">') == 1
    assert all(f"<td>{TINY}@{size} " in page for size in (32, 64, 96))


def test_int8_is_recommended_where_only_that_fits(two_parts: Path, tmp_path: Path) -> None:
    profile = write(tmp_path / "device.json", model(32, 10.0), model(32, 8.0, precision="int8"))
    result = trained(two_parts, tmp_path / "run", max_size="0.5MB", profile=profile)
    assert tried(result) == {f"{TINY}@32 int8": True}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"budget": "5ms"},
            f"at most 5ms: the fastest, {TINY}@32 int8, takes 9.0 ms for a photo on a made-up",
        ),
        ({"max_size": "200kB"}, f"at most 200kB: the smallest, {TINY}@32 int8, takes 0.29 MB"),
        ({"budget": "1s", "max_size": "200kB"}, "No candidate in that time takes at most 200kB"),
        ({"budget": "1s", "candidates": "resnet18"}, "has no figures of resnet18"),
        ({"budget": "1s", "candidates": f"{TINY}@64"}, f"has no figures of {TINY}@64"),
    ],
)
def test_what_can_not_be_chosen(
    options: dict[str, str], said: str, two_parts: Path, tmp_path: Path
) -> None:
    profile = write(tmp_path / "device.json", model(32, 10.0), model(32, 9.0, precision="int8"))
    with pytest.raises(TrainingError, match=said):
        trained(two_parts, tmp_path / "run", profile=profile, **options)
    assert not (tmp_path / "run").exists()


def test_without_a_profile_this_machine_is_measured(
    two_parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_choice, "run_candidates_command", write_candidates)
    monkeypatch.setattr(model_choice, "_RUNS", 1)
    result = trained(two_parts, tmp_path / "run", budget="100s", candidates=f"{TINY}@32")
    assert tried(result) == {f"{TINY}@32 fp32": True}
    assert all(trial["total_ms"] > 0 for trial in result.metrics["candidates"])


def test_what_the_command_for_candidates_says_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="There is no backbone 'resnet17'"):
        model_choice.run_candidates_command(
            tmp_path / "c.zip", [model_choice.CandidateName("resnet17")]
        )


def test_candidates_without_their_weights_are_left_out_unless_named(
    two_parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite = "efficientnet_lite1"
    profile = write(tmp_path / "device.json", model(32, 10.0), model(32, 1.0, backbone=lite))
    plain = model_choice.build_backbone

    def build(settings, classes):
        if settings.backbone == lite:
            raise MissingDependencyError("a package", lite, "backbones")
        return plain(settings, classes)

    monkeypatch.setattr(model_choice, "build_backbone", build)
    told = Notebook()
    given = {"budget": "1s", "profile": profile}
    result = trained(two_parts, tmp_path / "run", progress=told, **given)
    assert tried(result) == {f"{TINY}@32 fp32": True}
    assert any(lite in note and "backbones" in note for note in told.notes)
    with pytest.raises(MissingDependencyError):
        trained(two_parts, tmp_path / "named", candidates=lite, **given)


def test_a_resumed_run_keeps_what_was_chosen(
    two_parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = write(tmp_path / "device.json", model(32, 10.0), model(64, 20.0))
    small = {name: SMALL[name] for name in SMALL.keys() - {"backbone", "image_size"}}
    signal_in_step(monkeypatch, 2, signal.SIGINT)
    options = {**small, "feature_cache": "off", "budget": "15ms", "profile": profile}
    assert not train(two_parts, tmp_path / "run", **options).finished
    Path(profile).unlink()
    result = train(resume=tmp_path / "run")
    assert result.finished
    assert tried(result) == {f"{TINY}@32 fp32": True}
    assert result.settings.image_size == 32


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ((0.3, 0.2), 1),  # the slower one is better, and within the budget
        ((0.1, 0.2), 0),
        ((0.3, 0.2, 0.2), 1),  # as good as the slowest, and faster
        ((0.3, 0.21, 0.2), 2),
        ((None, 0.9), 1),  # the first could not be tried
        ((None, None), 0),
    ],
)
def test_the_one_with_the_lowest_loss_is_chosen(
    losses: tuple[float | None, ...], chosen: int
) -> None:
    trials = []
    for number, loss in enumerate(losses):
        trial = ModelTrial("net", 32 * (number + 1), "fp32", 10.0 * number, None, 1)
        trials.append(trial if loss is None else replace(trial, photos=40, loss=loss))
    assert best_of(trials) is trials[chosen]
    assert best_of(trials[::-1]) is trials[chosen]


@pytest.mark.parametrize(
    "given",
    [
        {"backbone": "resnet18"},
        {"image_size": 224},
        {"recipe": "classic"},
        {"weights": "weights.safetensors"},
    ],
)
def test_what_the_budget_chooses_is_not_given_beside_it(given: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="choose the backbone and the image size"):
        resolve("photos", {"budget": "15ms", **given}, cuda=False)


def test_options_of_the_budget_are_refused_without_it(tmp_path: Path) -> None:
    for name in ("profile", "candidates"):
        with pytest.raises(TrainingError, match="no effect without --budget or --max-size"):
            resolve("photos", {name: "x"}, cuda=False)
    with pytest.raises(Exception, match="can't be read"):
        resolve("photos", {"budget": "15ms", "profile": str(tmp_path / "no.json")}, cuda=False)
    with pytest.raises(TrainingError, match="'@3' names no candidate"):
        resolve("photos", {"budget": "15ms", "candidates": "@3"}, cuda=False)


def test_the_trials_use_some_photos_of_each_class(class_folder: Path) -> None:
    ordered = model_choice.evenly_ordered(scan(class_folder).train)
    assert sorted(sample.label for sample in ordered[:15]) == [0] * 5 + [1] * 5 + [2] * 5
