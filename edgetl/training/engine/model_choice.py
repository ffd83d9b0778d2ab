"""Which network a run with a budget trains: the best that the device has time and room for.

A head is fitted to the frozen features that each network within the budget computes, on the same
training photos. The one with the lowest cross-validated loss is chosen: within the budget, all are
fast enough.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.errors import MissingDependencyError, TrainingError
from edgetl.runtime.bundle.bundle_folder import DEFAULT_PRECISION
from edgetl.runtime.bundle.candidates_file import read_candidates_file
from edgetl.runtime.bundle.share_interval import wilson_interval
from edgetl.runtime.inference.device_profile import (
    DeviceProfile,
    MeasuredModel,
    measure,
    read_profile,
)
from edgetl.system.message_text import counted
from edgetl.system.progress import Progress
from edgetl.system.temporary_folder import scratch_folder
from edgetl.training.config.candidate_names import CandidateName, parse_candidates
from edgetl.training.config.model_trial import ModelTrial
from edgetl.training.config.option import flag
from edgetl.training.config.quantities import parse_bytes, parse_milliseconds
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine.run_backbone import build_backbone
from edgetl.training.head.features import compute_features
from edgetl.training.head.linear_head import fit_head
from edgetl.training.head.resize_choice import evenly_ordered
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import EMBEDDED
from edgetl.training.models.multi_level import find_levels
from edgetl.training.models.pretrained_weights import embedded_weights_file
from edgetl.training.optim.losses import class_weights

# Photos that each network is tried with, but at least so many of each class.
_MOST_PHOTOS, _OF_EACH_CLASS = 1000, 5
_RUNS = 20  # of each network, where it is measured on this machine


def choose_model(context: RunContext, folders: ImageFolders) -> RunContext:
    """The context with the chosen backbone and image size in its settings, and all trials.

    The main process chooses; every process must call it. Raises TrainingError if nothing is within
    the budget, MissingDependencyError for a named candidate whose weights are not installed.
    """
    trials = context.processes.from_main(lambda: _choose(context, folders))
    chosen = next(trial for trial in trials if trial.is_chosen)
    return replace(context, settings=_settings_for(chosen, context.settings), trials=trials)


def _choose(context: RunContext, folders: ImageFolders) -> tuple[ModelTrial, ...]:
    settings, listener = context.settings, context.listener
    names = parse_candidates(settings.candidates)
    if settings.profile:
        profile = read_profile(settings.profile)
        models = _named(profile, names, settings.profile)
    else:
        profile = _measure_here(names or _available(settings), listener.progress)
        models = list(profile.models)
    within = _within_budget(models, settings, len(folders.classes), profile)
    samples = evenly_ordered(folders.train)
    samples = samples[: max(_MOST_PHOTOS, _OF_EACH_CLASS * len(folders.classes))]
    found: list[ModelTrial] = []
    for trial in within:
        try:
            backbone = build_backbone(_settings_for(trial, settings), folders.classes)
        except MissingDependencyError as error:
            if names:
                raise
            listener.note(f"{trial.backbone} is not among the candidates. {error.hint}")
            continue
        found.append(_try(context, folders, samples, backbone, trial))
    if not found:
        raise TrainingError("None of the candidates' weights are installed.", "Name others.")
    chosen = best_of(found)
    listener.note(
        f"Chosen among {counted(len(found), 'candidate')}: {chosen.name}, "
        f"{chosen.total_ms:.1f} ms for a photo on {profile.machine['processor']}, "
        f"{chosen.bytes / 1e6:.2f} MB."
    )
    return tuple(replace(trial, is_chosen=trial is chosen) for trial in found)


def _settings_for(trial: ModelTrial, settings: TrainSettings) -> TrainSettings:
    return replace(settings, backbone=trial.backbone, image_size=trial.image_size)


def _named(
    profile: DeviceProfile, names: Sequence[CandidateName], path: str
) -> list[MeasuredModel]:
    """The models of a profile that ``names`` cover; all without names."""
    for name in names:
        if not any(name.covers(model.backbone, model.image_size) for model in profile.models):
            raise TrainingError(
                f"{path} has no figures of {name}.",
                f"Write it with edgetl candidates -o FILE {name}, and measure that on the device.",
            )
    return [
        model
        for model in profile.models
        if not names or any(name.covers(model.backbone, model.image_size) for name in names)
    ]


def _available(settings: TrainSettings) -> list[CandidateName]:
    """The embedded backbones whose weights are installed."""
    names = []
    for name in EMBEDDED:
        try:
            _ = settings.weights == "none" or embedded_weights_file(name)
        except MissingDependencyError:
            continue
        names.append(CandidateName(name))
    return names


def _measure_here(names: Sequence[CandidateName], progress: Progress) -> DeviceProfile:
    """What the networks take on this machine.

    They are written by the command, in a process of its own: exporting builds on training.
    """
    with scratch_folder("edgetl-train") as folder:
        file = folder / "candidates.zip"
        progress("Writing candidates", 0, 0)
        run_candidates_command(file, names)
        return measure(read_candidates_file(file), runs=_RUNS, progress=progress)


def run_candidates_command(file: Path, names: Sequence[CandidateName]) -> None:
    """``edgetl candidates`` in another process. Raises TrainingError with what it says."""
    # -P: a folder called edgetl in the current folder must not be taken for the package.
    edgetl = [sys.executable, "-P", "-m", "edgetl"]
    command = [*edgetl, "candidates", "-o", str(file), *map(str, names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().removeprefix("Error: ") or "no message"
        raise TrainingError(f"The candidates could not be written: {reason}")


def _within_budget(
    models: Sequence[MeasuredModel], settings: TrainSettings, classes: int, profile: DeviceProfile
) -> list[ModelTrial]:
    """Each network within the budget once: in fp32, or in int8 where only that fits.

    Raises TrainingError if there is none.
    """
    trials = [
        ModelTrial(
            model.backbone,
            model.image_size,
            model.precision,
            model.total_ms,
            model.memory,
            model.size(classes),
        )
        for model in models
    ]
    most_ms = parse_milliseconds(flag("budget"), settings.budget)
    most_bytes = parse_bytes(flag("max_size"), settings.max_size)
    hint = "Allow more, or measure smaller ones: edgetl candidates -o FILE NAME@SIZE"
    in_time = [trial for trial in trials if trial.total_ms <= most_ms]
    if not in_time:
        fastest = min(trials, key=lambda trial: trial.total_ms)
        raise TrainingError(
            f"No candidate takes at most {settings.budget}: the fastest, {fastest.name}, takes "
            f"{fastest.total_ms:.1f} ms for a photo on {profile.machine['processor']}.",
            hint,
        )
    small = [trial for trial in in_time if trial.bytes <= most_bytes]
    if not small:
        smallest = min(in_time, key=lambda trial: trial.bytes)
        raise TrainingError(
            f"No candidate{' in that time' * bool(settings.budget)} takes at most "
            f"{settings.max_size}: the smallest, {smallest.name}, takes "
            f"{smallest.bytes / 1e6:.2f} MB.",
            hint,
        )
    preferred: dict[tuple[str, int], ModelTrial] = {}
    for trial in sorted(small, key=lambda trial: trial.precision != DEFAULT_PRECISION):
        preferred.setdefault((trial.backbone, trial.image_size), trial)
    return sorted(preferred.values(), key=lambda trial: trial.total_ms)


def _try(
    context: RunContext,
    folders: ImageFolders,
    samples: Sequence[Sample],
    backbone: Backbone,
    trial: ModelTrial,
) -> ModelTrial:
    """The trial with its figures, for photos as they are cropped."""
    features = compute_features(
        context,
        backbone,
        samples,
        step=f"Trying {trial.backbone} at {trial.image_size} pixels",
        # That a head may see: the run that follows finds these features in the cache.
        levels=find_levels(backbone),
    )
    readable = features.readable(samples)
    if not readable:
        return trial
    found = fit_head(
        features.of(readable)[:, : backbone.head_layer.in_features],
        [sample.label for sample in readable],
        len(folders.classes),
        digests=[sample.digest for sample in readable],
        class_weights=class_weights(context.settings, folders),
        device=context.device,
    ).cross_validation
    if found is None:
        return trial
    photos, accuracy = len(found.losses), found.score.accuracy
    interval = wilson_interval(round(accuracy * photos), photos)
    return replace(
        trial, photos=photos, accuracy=accuracy, interval=interval, loss=found.score.loss
    )


def best_of(trials: Sequence[ModelTrial]) -> ModelTrial:
    """The one with the lowest loss; of equal ones, or with too few photos to try any, the fastest.

    trials  at least one
    """
    return min(trials, key=lambda trial: (not trial.photos, trial.loss, trial.total_ms))
