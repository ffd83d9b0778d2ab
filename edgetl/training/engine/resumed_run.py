"""An interrupted run is continued, with the same bits as if it had never stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetl.data.image_folder import ImageFolders
from edgetl.errors import CheckpointError, DataError, TrainingError
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.shell import shell_word
from edgetl.training.config.earlier_run import EarlierRun
from edgetl.training.config.listener import Listener
from edgetl.training.config.model_trial import ModelTrial
from edgetl.training.config.run_folder import (
    BEST,
    how_to_train_further,
    promote_candidate,
    unfinished_head,
)
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine.epochs import train_epochs
from edgetl.training.engine.new_run import train
from edgetl.training.engine.run_backbone import build_backbone
from edgetl.training.engine.run_photos import (
    find_photos,
    refuse_among_photos,
    require_same_photos,
    require_unchanged_photos,
    warn_about,
)
from edgetl.training.engine.run_start import run_folder_held, start_run
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.engine.train_state import TrainState, read_state
from edgetl.training.engine.training_setup import TrainingSetup, prepare_training
from edgetl.training.head.head_preparation import KnownPhotos
from edgetl.training.head.label_issues import LabelIssue
from edgetl.training.models import checkpoint
from edgetl.training.models.multi_level import with_levels
from edgetl.training.models.pretrained_weights import load_state
from edgetl.training.torch_env.distributed import choose_device
from edgetl.training.torch_env.torch_flags import torch_threads


def resume(
    folder: Path,
    *,
    data: str | Path | None = None,
    root: str | Path | None = None,
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
    TrainingError if its photos have changed; DataError if they are gone; else as ``train``.
    """
    started = time.monotonic()
    unfinished = unfinished_head(folder)
    saved = read_state(folder) if unfinished is None else unfinished
    settings = _settings_now(saved["settings"], data, root, device)
    if unfinished is not None:  # it has no state: doing it again finishes it
        choose_device(settings.device)  # raises before photos are listed, which can take minutes
        refuse_among_photos(folder, settings)
        _require_data(settings, folder)
        return train(
            settings,
            folder,
            find_photos(settings, listener or Listener()),
            started=started,
            overwrite=True,
            listener=listener,
            fingerprint=unfinished["card"]["data"]["fingerprint"],
            since=since,
        )
    if saved["train_state"]["finished"]:
        raise TrainingError(f"The run in {folder} is finished.", how_to_train_further(folder))
    trials = tuple(ModelTrial(**trial) for trial in saved["trials"])
    with (
        start_run(
            settings, folder, listener, started, notes=saved["notes"], trials=trials, since=since
        ) as context,
        # A sum that is split over other threads of a CPU rounds differently.
        torch_threads(saved["threads"]) if context.device.type == "cpu" else nullcontext(),
        run_folder_held(context),
    ):
        if context.processes.is_main and saved["train_state"]["best"]:
            promote_candidate(folder, TrainState.from_dict(saved["train_state"]).candidate)
            _require_kept_weights(folder, saved)
        _require_data(settings, folder)
        folders = find_photos(settings, context.listener)
        require_same_photos(folders, context.processes)
        warn_about(folders, settings, context.listener)
        backbone = build_backbone(
            settings, folders.classes, weights="none", processes=context.processes
        )
        backbone = with_levels(backbone, saved["levels"])
        backbone = replace(backbone, spec=PreprocessSpec.from_dict(saved["spec"]))
        load_state(backbone.module, saved["learner"]["network"])
        require_unchanged_photos(saved["scanned"], folders)  # before all photos are decoded
        known = _known_photos(saved, folders)
        setup = prepare_training(context, folders, backbone, known, resumed=True)
        require_unchanged_photos(saved["fingerprint"], setup.folders)
        _require_unchanged_batches(saved["batches"], setup)
        return train_epochs(context, folders, setup, saved)


def _known_photos(saved: Mapping[str, Any], folders: ImageFolders) -> KnownPhotos:
    """Those of when the run began. Photos that could not be read then are left out again.

    Even if they can be read now: decoders differ in what they can read, and on a GPU chance decides
    which one a photo meets.
    """
    again = [sample.path for sample in folders.train if sample.digest in saved["left_out"]]
    left_out = dict.fromkeys(again, "left out before")
    label_issues = [LabelIssue(*issue) for issue in saved["label_issues"]]
    return KnownPhotos(folders.without(left_out), left_out, label_issues)


def _settings_now(
    saved: Mapping[str, Any],
    data: str | Path | None,
    root: str | Path | None,
    device: str | None,
) -> TrainSettings:
    """The settings that the run began with, but for what is somewhere else now."""
    settings = TrainSettings.from_dict(saved)
    return replace(
        settings,
        device=device or settings.device,
        data=os.fspath(data or settings.data),
        root=os.fspath(root or settings.root),
    )


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


def _require_unchanged_batches(batches: int, setup: TrainingSetup) -> None:
    if setup.sampler.batches != batches:
        raise TrainingError(
            f"An epoch has {setup.sampler.batches} batches now, and had {batches} when the run "
            "began.",
            "Resume with as many processes as the run began with.",
        )
