"""The epochs of a run, from the beginning or from a saved state, and what they end with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from edgetl.data.image_folder import ImageFolders
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.run_folder import LAST, clear, discard_candidates
from edgetl.training.engine.finalize import RunOutcome, finalize
from edgetl.training.engine.kept_weights import KeptWeights
from edgetl.training.engine.learner import make_learner
from edgetl.training.engine.loop import Loop
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.engine.train_state import TrainState, run_identity
from edgetl.training.engine.training_setup import TrainingSetup
from edgetl.training.models import checkpoint
from edgetl.training.torch_env.device_transfer import channels_last


def train_epochs(
    context: RunContext,
    folders: ImageFolders,
    setup: TrainingSetup,
    saved: Mapping[str, Any] | None = None,
    keep_head: Callable[[nn.Module, Sequence[Mapping[str, Any]]], TrainResult] | None = None,
) -> TrainResult:
    """Train epoch by epoch, keep the best weights, and write what the run ends with.

    folders    with the photos that can't be read
    saved      the state of the interrupted run that this one resumes
    keep_head  ends the run where no epoch did better than the head that it started from
    """
    folder, processes, listener = context.folder, context.processes, context.listener
    learner, state = make_learner(context, setup), TrainState()
    if saved is not None:
        learner.load_state_dict(saved["learner"])
        state = TrainState.from_dict(saved["train_state"])
    earlier_seconds = state.seconds

    loop = Loop(context, setup, learner, run_identity(context, folders, setup), state)
    loop.save()  # from now on there is something to resume, and an earlier run can go
    if state.best is None and processes.is_main:
        clear(folder, but=LAST)
        discard_candidates(folder)
    if not loop.run():
        return TrainResult(folder, False, {}, context.settings)

    kept = loop.kept
    if state.best_epoch == 0:
        listener.note("No epoch did better than the head that training began with: it is kept.")
        if keep_head is not None and kept is not None and kept.trained is not None:
            return keep_head(kept.trained.network, state.history)
    elif state.midway:
        listener.note(
            "Kept: the mean of the weights that training began and ended with, "
            "better than any epoch's."
        )
    if kept is None:  # the best weights are from before the run was resumed
        trained = checkpoint.load(folder)
        network = channels_last(trained.network, processes.device)
        kept = KeptWeights(trained, setup.validation.logits(network))
    if not processes.is_main:
        return TrainResult(folder, True, {}, context.settings)
    assert kept.trained is not None

    def save_as_finished() -> None:
        state.finished = True
        loop.save()

    outcome = RunOutcome(
        kept.trained,
        setup.folders,
        kept.logits,
        setup.label_issues,
        history=state.history,
        earlier_seconds=earlier_seconds,
    )
    return finalize(context, outcome, save_as_finished)
