"""Recipes: the values of options that were not given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetl.errors import TrainingError
from edgetl.runtime.inference.device_profile import read_profile
from edgetl.training.config.option import flag, flags
from edgetl.training.config.run_folder import BEST
from edgetl.training.config.settings import OPTIONS, SOLVER, UNDECIDED, TrainSettings
from edgetl.training.config.weights_file import require_weights_file

CLASSIC: Mapping[str, Any] = {
    "backbone": "resnet50",
    "strategy": "full",
    "optimizer": "sgd",
    "lr": 0.001,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "layer_decay": 1.0,
    "scheduler": "step",
    "step_size": 7,
    "gamma": 0.1,
    "warmup": 0.0,
    "warm_head": False,
    "ema": 0.0,
    "label_smoothing": 0.0,
    "norm_statistics": True,
    "epochs": 25,
    "batch_size": 4,
    "workers": 4,
    "precision": "float32",
    "cache": "off",
    "resize": "squash",
    "image_size": 224,
    "rotation": 5.0,
    "flip": True,
    "scale": (0.96, 1.0),
    "ratio": (0.95, 1.05),
    "colour": 0.0,
}
"""The well-known transfer-learning recipe, option by option."""

OTHER_OPTIMIZERS: Mapping[str, Mapping[str, float]] = {
    "sgd": {"lr": 2e-3, "weight_decay": 1e-4},
    # Adam adds the decay to the gradient, and then divides it by the gradient's size.
    "adam": {"weight_decay": 0.0},
}
"""Values for the optimizers that AdamW's, the defaults, don't suit; see scripts/experiments.md."""


def resolve(data: str | Path, given: Mapping[str, Any], *, cuda: bool) -> TrainSettings:
    """The settings of a run: what was given, completed from the recipe and the defaults.

    given  field of ``TrainSettings`` → value, of the options that were given
    cuda   whether the run is on a GPU, which decides ``--strategy auto``

    Raises TrainingError for a value that can't be used, for options that have no effect beside the
    others, and for weights that don't exist.
    """
    TrainSettings(**{"data": data, **given})  # raises for what no recipe could make right
    recipe = dict(CLASSIC) if given.get("recipe") == "classic" else {}
    strategy = given.get("strategy", recipe.get("strategy", "auto"))
    if strategy == "auto" and (cuda or not _decides_later({**recipe, **given})):
        strategy = "full" if cuda else "features"
    if strategy in ("auto", "features") and not recipe:
        recipe["optimizer"] = SOLVER
    if given.get("weights") == "none":  # there are no pretrained statistics to keep
        recipe["norm_statistics"] = True
    if strategy in ("auto", "features"):  # nothing that measures them is trained
        recipe.pop("norm_statistics", None)
    weights = given.get("weights", "auto")
    if weights not in ("auto", "none") and (Path(weights) / BEST).is_file():  # a run's folder
        given = {**given, "weights": str(Path(weights) / BEST)}
    suited = OTHER_OPTIMIZERS.get({**recipe, **given}.get("optimizer", ""), {})
    if given.get("budget") or given.get("max_size"):
        _refuse_beside_budget(given)
        recipe["backbone"] = UNDECIDED
    settings = TrainSettings(**{"data": data, **suited, **recipe, **given, "strategy": strategy})
    _refuse_contradictions(settings, given)
    if settings.weights not in ("auto", "none"):
        require_weights_file(Path(settings.weights))
    return settings


def _decides_later(given: Mapping[str, Any]) -> bool:
    """Whether a run on a CPU decides when the head is fitted what else it has the time to train.

    Its strategy stays "auto". Not on top of random blocks, nor if the head is trained in epochs.
    """
    is_solved = given.get("optimizer", SOLVER) == SOLVER
    return is_solved and bool(given.get("max_time")) and given.get("weights") != "none"


def _refuse_beside_budget(given: Mapping[str, Any]) -> None:
    """Raise for options that name what a budget chooses, and for a profile that can't be read."""
    own = [name for name in ("backbone", "image_size") if name in given]
    own += ["recipe"] if given.get("recipe") == "classic" else []
    own += ["weights"] if given.get("weights", "auto") not in ("auto", "none") else []
    if own:
        raise TrainingError(
            f"{flags(dict.fromkeys(own))}: --budget and --max-size choose the backbone and the "
            "image size.",
            "Leave it out, or say what to choose from: --candidates NAME@SIZE",
        )
    if given.get("profile"):
        read_profile(given["profile"])


def _refuse_contradictions(settings: TrainSettings, given: Mapping[str, Any]) -> None:
    if settings.optimizer == SOLVER and settings.strategy not in ("auto", "features"):
        raise TrainingError(
            f"--optimizer {SOLVER} fits the head only.", "Use it with --strategy features."
        )
    if settings.class_weights and settings.balanced:
        raise TrainingError(
            "--class-weights and --balanced both even out the classes.", "Give one of them."
        )
    if "feature_cache" in given and not settings.has_effect("feature_cache"):
        raise TrainingError(
            f"--feature-cache: no effect without --warm-head or --optimizer {SOLVER}.",
            "Leave it out, or add one of them.",
        )
    if settings.backbone != UNDECIDED and {"profile", "candidates"} & given.keys():
        raise TrainingError(
            "--profile, --candidates: no effect without --budget or --max-size.",
            "Leave them out, or say what the model may take: --budget 15ms",
        )
    unused = {
        name: value
        for name, value in given.items()
        # 0 turns an option off, as it is anyway where it has no effect: --max-time 0, for one.
        if not settings.has_effect(name) and (isinstance(value, bool) or value != 0)
    }
    if not unused:
        return
    needs = [needs for name in unused if (needs := OPTIONS[name].needs)]
    needed = {other for other, _ in needs}
    if settings.optimizer == SOLVER and "optimizer" in needed <= {"optimizer", "strategy"}:
        raise TrainingError(
            f"{flags(unused)}: no effect where the head is solved for, without epochs.",
            "Train the head step by step with --optimizer adamw, "
            "or more of the network with --strategy full.",
        )
    wanted = sorted({f"{flag(other)} {' or '.join(values)}" for other, values in needs})
    raise TrainingError(
        f"{flags(unused)}: no effect without {', '.join(wanted)}.",
        "Leave it out, or add that.",
    )
