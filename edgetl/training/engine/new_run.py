"""A new run, from resolved settings and the photos that were found to a complete run folder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from edgetl.data.image_folder import ImageFolders
from edgetl.training.config.earlier_run import EarlierRun
from edgetl.training.config.listener import Listener
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.run_folder import require_free, unfinished_head
from edgetl.training.config.settings import SOLVER, UNDECIDED, TrainSettings
from edgetl.training.engine.blocks_plan import settings_after_head
from edgetl.training.engine.epochs import train_epochs
from edgetl.training.engine.finalize import finalize_head
from edgetl.training.engine.model_choice import choose_model
from edgetl.training.engine.run_backbone import build_backbone, note_on_weights
from edgetl.training.engine.run_photos import (
    note_warnings,
    require_same_photos,
    require_unchanged_photos,
    warn_about,
)
from edgetl.training.engine.run_start import run_folder_held, start_run
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.engine.training_setup import prepare_training
from edgetl.training.head.head_preparation import prepare_head, with_starting_head
from edgetl.training.models.backbone import Backbone


def train(
    settings: TrainSettings,
    folder: Path,
    folders: ImageFolders,
    *,
    started: float,
    overwrite: bool = False,
    listener: Listener | None = None,
    fingerprint: str | None = None,
    since: EarlierRun | None = None,
) -> TrainResult:
    """Train into ``folder``, or finish a run without epochs that was killed before its end there.

    folders      the photos of ``settings``, as ``find_photos`` returns them
    started      ``time.monotonic()`` of the start that ``max_time`` counts from
    overwrite    replace an earlier run in ``folder``, once this one has something to save
    fingerprint  that the readable photos must have
    since        the run to compare with

    Raises EdgetlErrors of many kinds before the first epoch, few after.
    """
    with start_run(settings, folder, listener, started, since=since) as context:
        require_same_photos(folders, context.processes)
        warn_about(folders, settings, context.listener)
        if settings.backbone == UNDECIDED:
            context = choose_model(context, folders)
            settings = context.settings
        backbone = build_backbone(settings, folders.classes, processes=context.processes)
        note_on_weights(backbone, settings, context.listener)
        with run_folder_held(context):
            if context.processes.is_main:
                require_free(folder, overwrite, [settings.to_dict()])
                if not overwrite and (unfinished := unfinished_head(folder)) is not None:
                    fingerprint = unfinished["card"]["data"]["fingerprint"]
            if settings.optimizer == SOLVER:
                return _train_head(context, folders, backbone, fingerprint)
            backbone, known = with_starting_head(context, backbone, folders)
            return train_epochs(
                context, folders, prepare_training(context, folders, backbone, known)
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
    note_warnings(prepared.folders, context.listener)
    if fingerprint is not None:
        require_unchanged_photos(fingerprint, prepared.folders)
    further = settings_after_head(context, prepared)
    if further is None:
        return finalize_head(context, prepared)
    with_epochs = replace(context, settings=further)
    backbone, known = with_starting_head(with_epochs, backbone, folders, prepared)
    setup = prepare_training(with_epochs, folders, backbone, known)
    return train_epochs(
        with_epochs, folders, setup, keep_head=partial(finalize_head, context, prepared)
    )
