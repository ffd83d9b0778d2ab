"""Trying learning rates from tiny to huge, a step each, to see where the loss falls and where it breaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgetl.data.image_folder import ImageFolders
from edgetl.errors import TrainingError
from edgetl.training.config.listener import Counter, Listener
from edgetl.training.config.run_files import make_folder, write_atomically
from edgetl.training.config.run_folder import RATES, RATES_PLOT
from edgetl.training.config.settings import SOLVER, TrainSettings
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.run_photos import find_photos, require_same_photos, warn_about
from edgetl.training.engine.setup import TrainingSetup, build_backbone, look_ahead, prepare_training
from edgetl.training.evaluation.run_records import write_table
from edgetl.training.torch_env.distributed import Processes, join
from edgetl.training.torch_env.malloc import keep_freed_memory
from edgetl.training.torch_env.torch_flags import reproducible

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 100
_SMOOTHING = 0.9  # share of the running mean that a step keeps
_BROKEN = 3.0  # times the smallest loss, above which larger rates are not tried
_SETTLING = 10  # steps after which the running mean is one of many
_LEAST_FALL = (
    0.15  # of the loss: what begins with a solved head wavers by half as much, and falls at no rate
)


@dataclass(frozen=True)
class FoundRate:
    """rates, losses: what was tried, losses smoothed; suggested: see ``half_fallen``; solved: from a solved head on."""

    rates: list[float]
    losses: list[float]
    suggested: float | None
    solved: bool
    table: Path
    plot: Path


def find_learning_rate(
    settings: TrainSettings,
    folder: Path,
    *,
    listener: Listener | None = None,
    folders: ImageFolders | None = None,
) -> FoundRate:
    """Write ``lr.csv`` and ``lr.png`` into ``folder``. Nothing that is trained here is kept.

    folders  what ``find_photos`` gave, if someone looked already

    Raises TrainingError if the head is solved for (there is no rate then), or the loss breaks at once.
    """
    if settings.optimizer == SOLVER:
        raise TrainingError(
            "The head is solved for, without a learning rate.",
            "Add --strategy full, or --optimizer adamw.",
        )
    listener = listener or Listener()
    settings = replace(settings, scheduler="none", warmup=0.0, ema=0.0, epochs=STEPS)
    with (
        join(settings.device) as processes,
        reproducible(processes.device),
        keep_freed_memory(processes.device),
    ):
        look_ahead(settings, processes)
        make_folder(folder)
        folders = folders or find_photos(settings, listener)
        require_same_photos(folders, processes)
        warn_about(folders, settings, listener)
        backbone = build_backbone(settings, folders.classes)
        kit = prepare_training(
            settings, folders, backbone, processes, folder, listener, left_out=None
        )
        learner = Learner(kit.backbone, settings, kit.class_weights, kit.sampler.steps, processes)
        rates, losses = _sweep(
            settings, kit, learner, processes, Counter(listener, "Trying learning rates", STEPS)
        )
        solved = settings.warm_head and kit.backbone.has_linear_head
        found = FoundRate(
            rates, losses, half_fallen(rates, losses), solved, folder / RATES, folder / RATES_PLOT
        )
        if processes.is_main:
            _write(found)
        return found


def _sweep(
    settings: TrainSettings,
    kit: TrainingSetup,
    learner: Learner,
    processes: Processes,
    done: Callable[[], None],
) -> tuple[list[float], list[float]]:
    """(rates, smoothed losses) of one step each, up to where the loss breaks."""
    rates: list[float] = []
    losses: list[float] = []
    mean, steps = 0.0, kit.sampler.steps
    learner.begin_training()
    with closing(
        cast("Any", kit.loader.batches(kit.sampler.shards(processes.rank, settings.epochs)))
    ) as batches:
        for number in range(STEPS):
            rate = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
            learner.set_rate(rate)
            epoch, step = divmod(number, steps)
            count, photos = kit.sampler.of_step(step)
            learner.step(epoch, step, batches, count, photos)
            loss, _, seen = processes.all_reduce_sum(learner.sums).tolist()
            learner.sums.zero_()
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss / seen
            smoothed = mean / (1 - _SMOOTHING ** (number + 1))  # the running mean began at 0
            if not math.isfinite(smoothed) or (losses and smoothed > _BROKEN * min(losses)):
                break
            rates.append(rate)
            losses.append(smoothed)
            done()
    return rates, losses


def half_fallen(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate at which the loss has fallen by half of all that it falls before it breaks: in the middle of the slope, and
    found in the same place again with other photos, which its steepest point, of a noisy curve, is not.

    None where it falls by too little to say. Raises TrainingError if the loss broke before that could be seen.
    """
    seen = np.asarray(losses)[_SETTLING:]
    if len(seen) <= _SETTLING:
        raise TrainingError(
            "The loss broke at once.", "The photos or the weights can't be trained on as they are."
        )
    down = seen[: int(seen.argmin()) + 1]
    highest, lowest = down.max(), down[-1]
    if highest - lowest < _LEAST_FALL * highest:
        return None
    return float(rates[_SETTLING + int(np.flatnonzero(down > (highest + lowest) / 2)[-1])])


def _write(found: FoundRate) -> None:
    write_table(found.table, ("lr", "loss"), zip(found.rates, found.losses, strict=True))
    write_atomically(found.plot, lambda path: _plot(found, path))


def _plot(found: FoundRate, path: Path) -> None:
    from matplotlib.figure import Figure  # without pyplot, whose figures are global

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", xlabel="learning rate", ylabel="training loss, smoothed"
    )
    axes.plot(found.rates, found.losses)
    if found.suggested is not None:
        axes.axvline(found.suggested, linestyle="--", label=f"suggested: {found.suggested:.1e}")
        axes.legend()
    figure.savefig(path, format="png", dpi=120)
