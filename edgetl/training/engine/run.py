"""One training run, from resolved settings to a complete run folder, or resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgetl.data.image_folder import ImageFolders
from edgetl.errors import CheckpointError, DataError, TrainingError
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.images.stored_path import as_place
from edgetl.system.shell import shell_word
from edgetl.training.config.earlier_run import EarlierRun
from edgetl.training.config.listener import Listener, RecordingListener
from edgetl.training.config.model_trial import ModelTrial
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.run_files import make_folder, require_seen_by_all
from edgetl.training.config.run_folder import (
    BEST,
    LAST,
    clear,
    discard_candidates,
    how_to_train_further,
    promote_candidate,
    require_free,
    unfinished_head,
)
from edgetl.training.config.run_lock import lock_run_folder
from edgetl.training.config.settings import SOLVER, UNDECIDED, TrainSettings
from edgetl.training.engine.blocks_plan import settings_after_head
from edgetl.training.engine.earlier_answers import ask_earlier_run
from edgetl.training.engine.finalize import finalize, finalize_head, stop_signals_announced
from edgetl.training.engine.kept_weights import KeptWeights
from edgetl.training.engine.loop import Loop
from edgetl.training.engine.model_choice import choose_model
from edgetl.training.engine.run_photos import (
    find_photos,
    refuse_among_photos,
    require_same_photos,
    warn_about,
)
from edgetl.training.engine.setup import (
    TrainingSetup,
    build_backbone,
    make_learner,
    note_left_out,
    note_unused_head,
    prepare_training,
    training_processes,
)
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.engine.train_state import TrainState, read_state
from edgetl.training.head.head_preparation import (
    PreparedHead,
    prepare_head,
    starting_head,
)
from edgetl.training.head.label_issues import LabelIssue
from edgetl.training.input.photo_storage import remove_leftovers
from edgetl.training.models import checkpoint
from edgetl.training.models.backbones import Backbone
from edgetl.training.models.multi_level import with_levels
from edgetl.training.models.pretrained_weights import load_state
from edgetl.training.torch_env.device_transfer import channels_last
from edgetl.training.torch_env.distributed import Processes
from edgetl.training.torch_env.torch_flags import torch_threads


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
    folders: ImageFolders | None = None,
    started: float | None = None,
    fingerprint: str | None = None,
    since: EarlierRun | None = None,
) -> TrainResult:
    """Train into ``folder``, or finish a run without epochs that was killed before its end there.

    overwrite    replace an earlier run in ``folder``, once this one has something to save
    folders      what ``find_photos`` returned, if it was called already
    started      ``time.monotonic()`` of the start that ``max_time`` counts from (default: now)
    fingerprint  that the readable photos must have
    since        the run to compare with

    Raises EdgetlErrors of many kinds before the first epoch, few after.
    """
    started = time.monotonic() if started is None else started
    with training_processes(settings) as processes, ExitStack() as held:
        context = _context(settings, folder, processes, listener, started)
        context = replace(context, since=since)
        if processes.is_main:
            refuse_among_photos(folder, settings)
            require_free(folder, overwrite, settings.to_dict())
            if not overwrite and (unfinished := unfinished_head(folder)) is not None:
                fingerprint = unfinished["card"]["data"]["fingerprint"]
        folders = folders or find_photos(settings, context.listener)
        warn_about(folders, settings, context.listener)
        if settings.backbone == UNDECIDED:
            context = choose_model(context, folders)
            settings = context.settings
        backbone = build_backbone(settings, folders.classes)
        note_unused_head(backbone, settings, context.listener)
        if settings.weights == "none" and settings.strategy == "features":
            context.listener.note(
                "The backbone is random and stays so: its features say little about photos. "
                "--strategy full trains it, too."
            )
        if processes.is_main:
            make_folder(folder)
            held.enter_context(lock_run_folder(folder))
            remove_leftovers(folder)
            # Again: another run may have begun meanwhile.
            require_free(folder, overwrite, settings.to_dict())
        require_seen_by_all(folder, processes)
        require_same_photos(folders, processes)
        if settings.optimizer == SOLVER:
            return _train_head(context, folders, backbone, fingerprint)
        return _train_epochs(context, folders, backbone)


def resume(
    folder: Path,
    *,
    data: Path | None = None,
    root: str | None = None,
    device: str | None = None,
    listener: Listener | None = None,
    since: EarlierRun | None = None,
) -> TrainResult:
    """Continue an interrupted run.

    data    where the photos, or their list, are now, if they were moved
    root    where the photos of a list are now
    device  another one than the run began on
    since   the run to compare with

    Raises CheckpointError if there is no run, or its folder can't be written any more;
    TrainingError if its photos have changed; else as ``train``.
    """
    started = time.monotonic()
    unfinished = unfinished_head(folder)
    saved = read_state(folder) if unfinished is None else unfinished
    settings = TrainSettings.from_dict(saved["settings"])
    settings = replace(
        settings,
        device=device or settings.device,
        data=os.fspath(data.absolute()) if data else settings.data,
        root=str(as_place(root).absolute()) if root else settings.root,
    )
    if unfinished is not None:
        _require_data(settings, folder)
        return train(
            settings,
            folder,
            overwrite=True,
            listener=listener,
            started=started,
            fingerprint=unfinished["card"]["data"]["fingerprint"],
            since=since,
        )
    if saved["train_state"]["finished"]:
        raise TrainingError(f"The run in {folder} is finished.", how_to_train_further(folder))
    with training_processes(settings) as processes, ExitStack() as held:
        context = _context(settings, folder, processes, listener, started, saved["notes"])
        trials = tuple(ModelTrial(**trial) for trial in saved["trials"])
        context = replace(context, trials=trials, since=since)
        if processes.device.type == "cpu":  # a sum split over other threads rounds differently
            held.enter_context(torch_threads(saved["threads"]))
        if processes.is_main:
            make_folder(folder)
            held.enter_context(lock_run_folder(folder))
            remove_leftovers(folder)
            if saved["train_state"]["best"]:
                promote_candidate(folder, TrainState.from_dict(saved["train_state"]).candidate)
                _require_kept_weights(folder, saved)
        _require_data(settings, folder)
        folders = find_photos(settings, context.listener)
        require_same_photos(folders, processes)
        warn_about(folders, settings, context.listener)
        backbone = build_backbone(settings, folders.classes, weights="none")
        backbone = with_levels(backbone, saved["levels"])
        backbone = replace(backbone, spec=PreprocessSpec.from_dict(saved["spec"]))
        load_state(backbone.module, saved["learner"]["network"])
        return _train_epochs(context, folders, backbone, saved)


def _context(
    settings: TrainSettings,
    folder: Path,
    processes: Processes,
    listener: Listener | None,
    started: float,
    notes: list[str] | None = None,
) -> RunContext:
    spoken_to = listener if listener and processes.is_main else Listener()
    return RunContext(
        settings, folder, processes, RecordingListener(spoken_to, notes or []), started
    )


def _train_head(
    context: RunContext, folders: ImageFolders, backbone: Backbone, fingerprint: str | None
) -> TrainResult:
    """Fit the head, without epochs, and go on with epochs if that pays and there is time for it.

    The main process does it all.
    """
    if not context.processes.is_main:
        return TrainResult(context.folder, True, {}, context.settings)
    prepared = prepare_head(context, backbone, folders)
    note_left_out(folders, prepared.folders, context.listener)
    if fingerprint is not None:
        _require_unchanged_photos(fingerprint, prepared.folders)
    further = settings_after_head(context, prepared)
    if further is None:
        return finalize_head(context, prepared)
    with_epochs = replace(context, settings=further)
    prepared = starting_head(with_epochs, prepared)
    keep_head = partial(finalize_head, context, prepared)
    return _train_epochs(
        with_epochs, folders, prepared.backbone, prepared=prepared, keep_head=keep_head
    )


def _train_epochs(
    context: RunContext,
    folders: ImageFolders,
    backbone: Backbone,
    saved: dict[str, Any] | None = None,
    prepared: PreparedHead | None = None,
    keep_head: Callable[[nn.Module, Sequence[Mapping[str, Any]]], TrainResult] | None = None,
) -> TrainResult:
    """Train epoch by epoch, from the beginning or from the saved state of an interrupted run.

    prepared   the head to start from, where it was fitted before
    keep_head  ends the run where no epoch did better than that
    """
    folder, processes, listener = context.folder, context.processes, context.listener
    setup, state, label_issues = _prepare(context, folders, backbone, saved, prepared)
    earlier_seconds = state.seconds
    identity = _identity(context, folders, setup, label_issues)
    learner = make_learner(context, setup)
    if saved is not None:
        learner.load_state_dict(saved["learner"])

    loop = Loop(context, setup, learner, identity, state)
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
    before = ask_earlier_run(context, setup.folders) if processes.is_main else None
    result = TrainResult(folder, True, {}, context.settings)
    with stop_signals_announced(context):
        if processes.is_main:
            assert kept.trained is not None
            result = finalize(
                context,
                kept.trained,
                setup.backbone,
                setup.folders,
                kept.logits,
                label_issues=label_issues,
                history=state.history,
                earlier_seconds=earlier_seconds,
                before=before,
            )
        state.finished = True
        loop.save()
    return result


def _prepare(
    context: RunContext,
    folders: ImageFolders,
    backbone: Backbone,
    saved: dict[str, Any] | None,
    prepared: PreparedHead | None,
) -> tuple[TrainingSetup, TrainState, list[LabelIssue]]:
    """What to train with, and where to go on: as saved, if nothing has changed since then."""
    if saved is None:
        setup = prepare_training(context, folders, backbone, prepared=prepared)
        return setup, TrainState(), setup.label_issues
    _require_unchanged_photos(saved["scanned"], folders)  # before all photos are decoded
    setup = prepare_training(context, folders, backbone, left_out=saved["left_out"])
    _require_unchanged_photos(saved["fingerprint"], setup.folders)
    _require_unchanged_batches(saved["batches"], setup)
    label_issues = [LabelIssue(*issue) for issue in saved["label_issues"]]
    return setup, TrainState.from_dict(saved["train_state"]), label_issues


def _identity(
    context: RunContext, folders: ImageFolders, setup: TrainingSetup, label_issues: list[LabelIssue]
) -> dict[str, Any]:
    """Plain values that are saved with each state: what a resumed run must find, and needs to know.

    folders  with the photos that can't be read
    """
    readable = {sample.digest for sample in setup.folders.train}
    return {
        "settings": context.settings.to_dict(),
        "scanned": folders.fingerprint,
        "fingerprint": setup.folders.fingerprint,
        "left_out": sorted({sample.digest for sample in folders.train} - readable),
        "spec": setup.backbone.spec.to_dict(),
        "levels": setup.backbone.levels,
        "notes": context.listener.notes,
        "threads": torch.get_num_threads(),
        "batches": setup.sampler.batches,
        "trials": [asdict(trial) for trial in context.trials],
        "label_issues": [tuple(issue) for issue in label_issues],
    }


def _require_kept_weights(folder: Path, saved: dict[str, Any]) -> None:
    """Raise CheckpointError if the kept weights are missing, damaged, or another run's."""
    kept, state = checkpoint.load(folder), saved["train_state"]
    may_differ = {"data": "", "root": "", "device": ""}
    found = (
        kept.card.metrics["epoch"],
        kept.card.metrics["midway"],
        kept.card.data["fingerprint"],
        {**kept.settings, **may_differ},
    )
    expected = (
        state["best_epoch"],
        state["midway"],
        saved["fingerprint"],
        {**saved["settings"], **may_differ},
    )
    if found != expected:
        raise CheckpointError(
            f"{folder / BEST} is not the one that this run has kept.",
            "Put that back, or start again with --overwrite.",
        )


def _require_data(settings: TrainSettings, folder: Path) -> None:
    if settings.source.is_gone:
        raise DataError(
            f"{settings.data}, where the photos were, does not exist any more.",
            f"Put it back, or name its new place: edgetl train DATA --resume {shell_word(folder)}",
        )


def _require_unchanged_photos(fingerprint: str, folders: ImageFolders) -> None:
    if folders.fingerprint != fingerprint:
        raise TrainingError(
            f"The photos in {folders.root} have changed since the run began.",
            "Put them back, or start again with --overwrite.",
        )


def _require_unchanged_batches(batches: int, setup: TrainingSetup) -> None:
    if setup.sampler.batches != batches:
        raise TrainingError(
            f"An epoch has {setup.sampler.batches} batches now, and had {batches} when the run "
            "began.",
            "Resume with as many processes as the run began with.",
        )
