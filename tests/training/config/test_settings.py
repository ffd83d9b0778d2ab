"""Options and recipes: one place for defaults, and no option that silently does nothing."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgetl.errors import TrainingError
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.recipes import CLASSIC, OTHER_OPTIMIZERS, resolve
from edgetl.training.config.settings import OPTIONS, SOLVER, TrainSettings
from edgetl.training.engine.run_backbone import wanted_spec

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_every_field_but_the_folder_is_an_option():
    names = [field.name for field in dataclasses.fields(TrainSettings)]
    assert names == ["data", *OPTIONS]


def test_settings_survive_json():
    settings = resolve("photos", {"recipe": "classic", "mixup": 0.2}, cuda=False)
    assert TrainSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_settings_of_another_version_are_refused():
    values = resolve("photos", {}, cuda=False).to_dict()
    with pytest.raises(TrainingError, match="sharpness"):
        TrainSettings.from_dict({**values, "sharpness": 1})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs", "3", "--epochs is '3'; it takes a whole number"),
        ("epochs", 3.0, "it takes a whole number"),
        ("epochs", True, "it takes a whole number"),
        ("lr", None, "--lr is None; it takes a number"),
        ("lr", 1e308, "it must be above 0 and at most 1e\\+06"),
        ("flip", 1, "it takes True or False"),
        ("device", 0, "--device is 0; it takes text"),
        ("scale", 0.5, "--scale is 0.5; it takes a pair, each a number"),
        ("scale", (0.5, 0.6, 0.7), "it takes a pair"),
        ("scale", ("0.5", 1.0), "it takes a pair"),
        ("mixup", 1e-300, "--mixup is 1e-300; it must be 0 or at least 0.001"),
        ("epochs", 10**400, "it must be at least 1 and at most 1e\\+09"),
        ("warmup", 1.7e308, "--warmup is 1.7e\\+308; it must be at least 0 and at most 1e\\+09"),
        ("ratio", (1e-300, 10.0), "it must be at least 0.1 and at most 10"),
        ("image_size", 15, "--image-size is 15; it must be 0 or at least 16"),
        ("image_size", 22400, "it must be 0 or at least 16, and at most 2048"),
        ("cutmix", 1e-4, "--cutmix is 0.0001; it must be 0 or at least 0.001"),
    ],
)
def test_a_value_that_can_not_be_used_is_refused_by_name(name, value, said):
    with pytest.raises(TrainingError, match=said):
        TrainSettings("photos", **{name: value})


def test_a_whole_number_will_do_for_any_other():
    assert TrainSettings("photos", lr=1, scale=(1, 1), mixup=0).lr == 1


def test_the_default_depends_on_the_machine():
    assert (resolve("d", {}, cuda=False).strategy, resolve("d", {}, cuda=False).optimizer) == (
        "features",
        SOLVER,
    )
    assert (resolve("d", {}, cuda=True).strategy, resolve("d", {}, cuda=True).optimizer) == (
        "full",
        "adamw",
    )


def test_each_optimizer_has_numbers_that_suit_it():
    def numbers(**given):
        settings = resolve("d", {"strategy": "full", **given}, cuda=False)
        return settings.lr, settings.weight_decay

    assert numbers() == numbers(optimizer="adamw") == (5e-4, 0.05)
    assert numbers(optimizer="sgd") == (2e-3, 1e-4)
    assert numbers(optimizer="adam") == (5e-4, 0.0)
    assert numbers(optimizer="sgd", lr=0.1, weight_decay=0.3) == (0.1, 0.3)
    assert numbers(recipe="classic") == numbers(recipe="classic", optimizer="adam") == (0.001, 0.0)


def test_the_help_tells_the_numbers_of_other_optimizers():
    for optimizer, numbers in OTHER_OPTIMIZERS.items():
        for name, value in numbers.items():
            assert f"with {optimizer} {value:.5f}".rstrip("0").rstrip(".") in OPTIONS[name].help


def test_weights_that_are_not_there_are_missed_before_anything_is_built():
    with pytest.raises(TrainingError, match=r"no weights file nowhere\.pth"):
        resolve("d", {"weights": "nowhere.pth"}, cuda=False)


def test_a_runs_folder_stands_for_its_weights_and_its_state_or_another_folder_for_none(
    tmp_path, monkeypatch
):
    (tmp_path / "last.pt").touch()
    resolve("d", {"weights": str(tmp_path / "last.pt")}, cuda=False)  # it may be anybody's
    best = tmp_path / "best.safetensors"
    best.touch()
    assert resolve("d", {"weights": str(tmp_path)}, cuda=False).weights == str(best)
    with monkeypatch.context() as patch:
        for word in ("auto", "none"):  # what they mean does not depend on what lies about
            (tmp_path / word).mkdir()
            (tmp_path / word / "best.safetensors").touch()
            patch.chdir(tmp_path)
            assert resolve("d", {"weights": word}, cuda=False).weights == word
        assert resolve("d", {}, cuda=False).weights == "auto"
    with pytest.raises(TrainingError, match="not a file of weights") as caught:
        resolve("d", {"weights": str(tmp_path / "last.pt")}, cuda=False)
    assert str(best) in caught.value.hint
    for folder in (".", "/"):
        with pytest.raises(TrainingError, match="is a folder"):
            resolve("d", {"weights": folder}, cuda=False)


def test_statistics_are_kept_where_there_are_any():
    given = ({}, {"weights": "none"}, {"norm_statistics": True}, {"recipe": "classic"})
    measured = [
        resolve("d", {"strategy": "full", **options}, cuda=False).norm_statistics
        for options in given
    ]
    assert measured == [False, True, True, True]
    frozen = {"strategy": "features", "optimizer": "sgd"}
    for options in ({}, {"weights": "none"}, {"recipe": "classic"}):
        assert not resolve("d", {**frozen, **options}, cuda=False).norm_statistics


@pytest.mark.parametrize("given", [{"layer_decay": 0.5}, {"norm_statistics": True}])
def test_what_concerns_the_body_is_refused_where_it_is_frozen(given):
    resolve("d", {"strategy": "last-blocks", **given}, cuda=False)
    for optimizer in ("solver", "adamw"):
        with pytest.raises(TrainingError, match="no effect without --strategy last-blocks or full"):
            resolve("d", {"strategy": "features", "optimizer": optimizer, **given}, cuda=False)
    with pytest.raises(TrainingError, match="no effect where the head is solved for"):
        resolve("d", {"strategy": "features", "lr": 1e-3, **given}, cuda=False)


def test_a_feature_cache_is_refused_where_no_features_are_computed():
    for given in ({"strategy": "features"}, {"strategy": "full"}):
        assert resolve("d", {**given, "feature_cache": "off"}, cuda=False).has_effect(
            "feature_cache"
        )
    with pytest.raises(TrainingError, match="--feature-cache: no effect without --warm-head"):
        resolve("d", {"strategy": "full", "warm_head": False, "feature_cache": "off"}, cuda=False)


def test_the_classic_recipe_is_the_well_known_one():
    settings = resolve("photos", {"recipe": "classic"}, cuda=False)
    assert (settings.backbone, settings.strategy, settings.batch_size, settings.workers) == (
        "resnet50",
        "full",
        4,
        4,
    )
    assert (settings.optimizer, settings.lr, settings.momentum, settings.weight_decay) == (
        "sgd",
        0.001,
        0.9,
        0.0,
    )
    assert (settings.scheduler, settings.step_size, settings.gamma, settings.warmup) == (
        "step",
        7,
        0.1,
        0.0,
    )
    assert (settings.rotation, settings.flip, settings.scale, settings.ratio) == (
        5.0,
        True,
        (0.96, 1.0),
        (0.95, 1.05),
    )
    assert (settings.ema, settings.label_smoothing, settings.colour, settings.layer_decay) == (
        0.0,
        0.0,
        0.0,
        1.0,
    )
    published = PreprocessSpec("shorter_side", 232, "bilinear", (224, 224), *IMAGENET)
    assert wanted_spec(settings, published) == PreprocessSpec(
        "squash", (224, 224), "bilinear", None, *IMAGENET
    )


@pytest.mark.parametrize(
    "name", [name for name in CLASSIC if name not in ("strategy", "step_size", "gamma", "momentum")]
)
def test_every_part_of_the_classic_recipe_can_be_overridden(name):
    other = {
        "backbone": "resnet18",
        "optimizer": "adam",
        "scheduler": "cosine",
        "precision": "bf16",
        "cache": "memory",
        "resize": "published",
        "flip": False,
        "warm_head": True,
        "norm_statistics": False,
        "scale": (0.5, 0.6),
        "ratio": (0.8, 1.2),
        "image_size": 96,
    }.get(name, 3 if isinstance(CLASSIC[name], int) else 0.5)
    settings = resolve("photos", {"recipe": "classic", name: other}, cuda=False)
    assert getattr(settings, name) == other
    assert settings.lr == (other if name == "lr" else 0.001)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strategy": "features", "epochs": 3}, "--epochs: no effect where the head is solved for"),
        (
            {"strategy": "full", "gamma": 0.5},
            "--gamma: no effect without --scheduler plateau or step|--scheduler step or plateau",
        ),
        ({"strategy": "full", "blocks": 2}, "--blocks: no effect without --strategy last-blocks"),
        (
            {"strategy": "features", "flip": False},
            "--no-flip: no effect where the head is solved for",
        ),
        ({"strategy": "full", "momentum": 0.5}, "--momentum: no effect without --optimizer sgd"),
        ({"strategy": "full", "optimizer": "solver"}, "fits the head only"),
        ({"strategy": "full", "balanced": True, "class_weights": True}, "both even out"),
        ({"lr": -1.0, "strategy": "full"}, "--lr is -1.0; it must be above 0"),
        ({"scale": (0.9, 0.5), "strategy": "full"}, "smaller number comes first"),
        ({"scheduler": "linear", "strategy": "full"}, "it takes none, step, cosine"),
    ],
)
def test_options_that_make_no_sense_are_refused(given, said):
    with pytest.raises(TrainingError, match=said):
        resolve("photos", given, cuda=False)


def test_zero_turns_off_what_has_no_effect_anyway():
    settings = resolve("photos", {"max_time": 0.0, "early_stop": 0, "clip": 0.0}, cuda=False)
    assert settings == resolve("photos", {}, cuda=False)


def test_with_a_time_limit_a_run_on_a_cpu_decides_later_what_it_trains():
    assert resolve("d", {"max_time": 5.0}, cuda=True).strategy == "full"
    settings = resolve("d", {"max_time": 5.0}, cuda=False)
    assert (settings.strategy, settings.optimizer) == ("auto", "solver")
    assert settings.has_effect("max_time") and not settings.has_effect("epochs")
    for given in ({"strategy": "features"}, {"weights": "none"}):  # these train the head alone
        with pytest.raises(TrainingError, match="--max-time: no effect where the head is solved"):
            resolve("d", {"max_time": 5.0, **given}, cuda=False)


@pytest.mark.parametrize("given", [{"optimizer": "adamw"}, {"recipe": "classic"}])
def test_with_a_time_limit_a_head_that_is_trained_in_epochs_stays_one(given):
    given = {"strategy": "auto", "max_time": 5.0, **given}
    assert resolve("d", given, cuda=False).strategy == "features"


def test_image_size_keeps_the_proportions_of_the_published_preprocessing():
    published = PreprocessSpec("shorter_side", 256, "bicubic", (224, 224), *IMAGENET)
    spec = wanted_spec(resolve("d", {"image_size": 112}, cuda=False), published)
    assert (spec.size, spec.crop) == (128, (112, 112))
    assert wanted_spec(resolve("d", {}, cuda=False), published) == published
    squashed = PreprocessSpec("squash", (256, 256), "bicubic", (224, 224), *IMAGENET)
    spec = wanted_spec(resolve("d", {"image_size": 112}, cuda=False), squashed)
    assert (spec.size, spec.crop) == ((128, 128), (112, 112))
    whole = wanted_spec(
        resolve("d", {"image_size": 112}, cuda=False),
        PreprocessSpec("squash", (224, 224), "bicubic", None, *IMAGENET),
    )
    assert (whole.size, whole.crop) == ((112, 112), None)
