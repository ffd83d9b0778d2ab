"""Trying learning rates from tiny to huge, a step each, to see where the loss falls and breaks."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgetl.data.image_folder import ImageFolders
from edgetl.errors import TrainingError
from edgetl.system.progress import ProgressCounter
from edgetl.training.config.listener import Listener
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.run_files import make_folder, write_atomically
from edgetl.training.config.run_folder import RATES, RATES_PLOT
from edgetl.training.config.settings import SOLVER, TrainSettings
from edgetl.training.engine.learner import Learner, make_learner
from edgetl.training.engine.run_backbone import build_backbone
from edgetl.training.engine.run_photos import require_same_photos, warn_about
from edgetl.training.engine.run_start import start_run
from edgetl.training.engine.training_setup import TrainingSetup, prepare_training
from edgetl.training.evaluation.run_records import write_table
from edgetl.training.head.head_preparation import with_starting_head

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 100
_SMOOTHING = 0.9  # share of the running mean that a step keeps
_DIVERGED = 3.0  # times the smallest loss, above which larger rates are not tried
_FIRST = 10  # steps whose running mean is one of too few losses
# Of the loss: what starts with a fitted head varies by half as much, and falls at no rate.
_SMALLEST_FALL = 0.15


@dataclass(frozen=True)
class FoundRate:
    """The result of ``find_learning_rate``.

    rates        what was tried
    losses       training losses at these, smoothed
    suggested    see ``half_fallen``
    fitted_head  whether training started from a fitted head
    """

    rates: list[float]
    losses: list[float]
    suggested: float | None
    fitted_head: bool
    table: Path
    plot: Path


def find_learning_rate(
    settings: TrainSettings,
    folder: Path,
    folders: ImageFolders,
    *,
    listener: Listener | None = None,
) -> FoundRate:
    """Write ``lr.csv`` and ``lr.png`` into ``folder``. The trained weights are not kept.

    folders  the photos of ``settings``, as ``find_photos`` returns them

    Raises TrainingError if the head is fitted without a rate, or if the loss diverges at once.
    """
    if settings.optimizer == SOLVER:
        raise TrainingError(
            "The head is solved for, without a learning rate.",
            "Add --strategy full, or --optimizer adamw.",
        )
    settings = replace(settings, scheduler="none", warmup=0.0, ema=0.0, epochs=STEPS)
    with start_run(settings, folder, listener, time.monotonic()) as context:
        make_folder(folder)
        require_same_photos(folders, context.processes)
        warn_about(folders, settings, context.listener)
        backbone = build_backbone(settings, folders.classes, processes=context.processes)
        backbone, known = with_starting_head(context, backbone, folders)
        setup = prepare_training(context, folders, backbone, known)
        learner = make_learner(context, setup)
        rates, losses = try_rates(context, setup, learner)
        suggested = half_fallen(rates, losses)
        table, plot = folder / RATES, folder / RATES_PLOT
        found = FoundRate(rates, losses, suggested, setup.fitted_head, table, plot)
        if context.processes.is_main:
            write_table(table, ("lr", "loss"), zip(rates, losses, strict=True))
            write_atomically(plot, lambda path: _plot(found, path))
        return found


def try_rates(
    context: RunContext, setup: TrainingSetup, learner: Learner
) -> tuple[list[float], list[float]]:
    """Train a step at each rate until the loss diverges → (rates, smoothed losses)."""
    processes, steps = context.processes, setup.sampler.steps
    count_step = ProgressCounter(context.listener.progress, "Trying learning rates", STEPS)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    learner.train_mode()
    shards = setup.sampler.shards(processes.rank, context.settings.epochs)
    with closing(cast("Any", setup.loader.batches(shards))) as batches:
        for number in range(STEPS):
            rate = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
            learner.set_lr(rate)
            epoch, step = divmod(number, steps)
            count, photos = setup.sampler.of_step(step)
            learner.step(epoch, step, batches, count, photos)
            loss, _, seen = processes.all_reduce_sum(learner.sums).tolist()
            learner.sums.zero_()
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss / seen
            smoothed = mean / (1 - _SMOOTHING ** (number + 1))  # the running mean started at 0
            if not math.isfinite(smoothed) or (losses and smoothed > _DIVERGED * min(losses)):
                break
            rates.append(rate)
            losses.append(smoothed)
            count_step()
    return rates, losses


def half_fallen(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate at which the loss has fallen by half of what it falls before it diverges.

    That is in the middle of the slope, and in the same place again with other photos; the steepest
    point of a noisy curve is not.

    None if the loss falls too little to tell. Raises TrainingError if it diverged before that.
    """
    seen = np.asarray(losses)[_FIRST:]
    if len(seen) <= _FIRST:
        raise TrainingError(
            "The loss diverged at once.",
            "The photos or the weights can't be trained on as they are.",
        )
    down = seen[: int(seen.argmin()) + 1]
    highest, lowest = down.max(), down[-1]
    if highest - lowest < _SMALLEST_FALL * highest:
        return None
    return float(rates[_FIRST + int(np.flatnonzero(down > (highest + lowest) / 2)[-1])])


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
