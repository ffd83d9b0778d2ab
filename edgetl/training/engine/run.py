"""One training run, from settings to a run folder: begun, or resumed where it stopped."""

from __future__ import annotations

import platform
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from edgetl._version import __version__
from edgetl.data.image_folder import ImageFolders
from edgetl.errors import CheckpointError, DataError, TrainingError
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.shell import shell_word
from edgetl.system.stop_signal import StopSignal
from edgetl.training.config.listener import Listener, Remembering
from edgetl.training.config.run_files import make_folder, require_seen_by_all
from edgetl.training.config.run_folder import (
    BEST,
    HEAD_ONLY,
    LAST,
    candidate_name,
    clear,
    discard_candidates,
    how_to_train_further,
    promote_candidate,
    require_free,
)
from edgetl.training.config.run_lock import lock_run_folder
from edgetl.training.config.settings import SOLVER, TrainSettings
from edgetl.training.engine.finalize import ReportInputs, finalize
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.loop import Loop, LoopContext
from edgetl.training.engine.run_photos import (
    find_photos,
    refuse_among_photos,
    require_same_photos,
    warn_about,
)
from edgetl.training.engine.setup import (
    build_backbone,
    class_weights,
    look_ahead,
    prepare_training,
    readable,
)
from edgetl.training.engine.train_state import TrainState, read_state
from edgetl.training.evaluation.validation import Scores, scores
from edgetl.training.head.head_solver import compute_features, solve_head
from edgetl.training.head.label_issues import LabelIssue
from edgetl.training.head.resize_choice import choose_resize
from edgetl.training.input.photo_storage import remove_leftovers
from edgetl.training.models import checkpoint
from edgetl.training.models.backbones import Backbone
from edgetl.training.models.checkpoint import Trained
from edgetl.training.models.multi_level import with_levels
from edgetl.training.torch_env.device_transfer import channels_last
from edgetl.training.torch_env.distributed import Processes, describe, join
from edgetl.training.torch_env.malloc import keep_freed_memory
from edgetl.training.torch_env.torch_flags import reproducible, torch_threads

_PACKAGES = ("torch", "torchvision", "timm")
_MOVED = "Put it back, or say where it is now: edgetl train DATA --resume"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, or interrupted, to be resumed.

    metrics  what ``metrics_summary`` gave, with the epoch of the kept weights; empty where the run is not finished, and in
             processes that do not lead
    """

    folder: Path
    finished: bool
    metrics: dict[str, Any]


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
    folders: ImageFolders | None = None,
    started: float | None = None,
) -> Outcome:
    """Train into ``folder``. Raises EdgetlErrors of many kinds before the first epoch, few after.

    listener   told what happens
    overwrite  throw away an earlier run in ``folder``, once the photos are decoded and the backbone is at work
    folders    what ``find_photos`` gave, if someone looked already
    started    ``time.monotonic()`` when that began (default: now); ``max_time`` and the run's seconds count from there
    """
    started = time.monotonic() if started is None else started
    with (
        join(settings.device) as processes,
        reproducible(processes.device),
        keep_freed_memory(processes.device),
        ExitStack() as held,
    ):
        noted = Remembering(listener if listener and processes.is_main else Listener())
        if processes.is_main:
            refuse_among_photos(folder, settings)
            require_free(folder, overwrite)
        look_ahead(settings, processes)
        folders = folders or find_photos(settings, noted)
        warn_about(folders, settings, noted)
        backbone = build_backbone(settings, folders.classes)
        if settings.weights == "none" and settings.strategy == "features":
            noted.note(
                "The backbone is random and stays so: it tells little from anything. --strategy full trains it, too."
            )
        if processes.is_main:
            make_folder(folder)
            held.enter_context(lock_run_folder(folder))
            remove_leftovers(folder)
            require_free(folder, overwrite)  # again: another run may have come in between
        require_seen_by_all(folder, processes)
        require_same_photos(folders, processes)
        run = _Run(settings, folder, processes, noted, started)
        return (
            run.solve(folders, backbone)
            if settings.optimizer == SOLVER
            else run.loop(folders, backbone, None)
        )


def resume(
    folder: Path,
    *,
    data: Path | None = None,
    device: str | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """Go on with an interrupted run. Raises CheckpointError if there is none, TrainingError if its photos have changed.

    data      where the photos are now, if they were moved
    device    another one than the run began on
    listener  told what happens

    Raises as ``train`` does; CheckpointError, too, where the folder can't be written any more.
    """
    started = time.monotonic()
    state = read_state(folder)
    settings = TrainSettings.from_dict(state["settings"])
    settings = replace(
        settings,
        device=device or settings.device,
        data=str(data.absolute()) if data else settings.data,
    )
    if state["standing"]["finished"]:
        raise TrainingError(f"The run in {folder} is finished.", how_to_train_further(folder))
    with (
        join(settings.device) as processes,
        reproducible(processes.device),
        keep_freed_memory(processes.device),
        ExitStack() as held,
    ):
        noted = Remembering(
            listener if listener and processes.is_main else Listener(), state["notes"]
        )
        look_ahead(settings, processes)
        if processes.device.type == "cpu":  # a sum cut into other parts rounds otherwise
            held.enter_context(torch_threads(state["threads"]))
        if processes.is_main:
            make_folder(folder)
            held.enter_context(lock_run_folder(folder))
            remove_leftovers(folder)
            if state["standing"]["best"]:
                promote_candidate(folder, TrainState.from_dict(state["standing"]).kept)
                _require_kept(folder, state)
        if not Path(settings.data).is_dir():
            raise DataError(
                f"{settings.data}, the folder of the photos, is gone.",
                f"{_MOVED} {shell_word(folder)}",
            )
        folders = find_photos(settings, noted)
        require_same_photos(folders, processes)
        warn_about(folders, settings, noted)
        backbone = with_levels(
            build_backbone(settings, folders.classes, weights="none"), state["levels"]
        )
        backbone = replace(backbone, spec=PreprocessSpec.from_dict(state["spec"]))
        return _Run(settings, folder, processes, noted, started).loop(folders, backbone, state)


def _require_unchanged(fingerprint: str, folders: ImageFolders) -> None:
    if folders.fingerprint != fingerprint:
        raise TrainingError(
            f"The photos in {folders.root} have changed since the run began.",
            "Put them back, or start again with --overwrite.",
        )


def _require_kept(folder: Path, state: dict[str, Any]) -> None:
    """Raises CheckpointError if the weights that the run will end with are gone, damaged, or not its own."""
    kept, standing = checkpoint.load(folder), state["standing"]
    moved = {"data": "", "device": ""}  # what may differ
    found = (
        kept.card.metrics["epoch"],
        kept.card.metrics["midway"],
        kept.card.data["fingerprint"],
        {**kept.settings, **moved},
    )
    if found != (
        standing["best_epoch"],
        standing["midway"],
        state["fingerprint"],
        {**state["settings"], **moved},
    ):
        raise CheckpointError(
            f"{folder / BEST} is not the one that this run has kept.",
            "Put that back, or start again with --overwrite.",
        )


class _Run:
    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        processes: Processes,
        listener: Remembering,
        started: float,
    ) -> None:
        self._settings, self._folder, self._processes, self._listener = (
            settings,
            folder,
            processes,
            listener,
        )
        self._device, self._started = processes.device, started

    def solve(self, folders: ImageFolders, backbone: Backbone) -> Outcome:
        """Only the head, without epochs. One process does it all."""
        if not self._processes.is_main:
            return Outcome(self._folder, True, {})
        arguments = (self._device, self._settings, self._listener)
        backbone, known = choose_resize(
            backbone, folders.train, class_weights(self._settings, folders), *arguments
        )
        features = compute_features(backbone, folders.train + folders.val, *arguments, known)
        folders = readable(folders, dict(features.unreadable), self._listener)
        weights = class_weights(self._settings, folders)
        backbone, head = solve_head(
            backbone, folders.train, features, weights, self._device, self._listener
        )
        logits = head.logits(
            np.ascontiguousarray(features.of(folders.val)[:, : head.weight.shape[1]])
        )
        labels = np.array([sample.label for sample in folders.val], np.int64)
        self._listener.working("Writing the report", 0, 0)
        told = self._told(
            strengths=[(score.C, score.loss) for score in head.scores],
            doubts=head.label_issues,
        )
        with StopSignal(self._tell_of_ending):  # half of what is written would be of no use
            self._keep(
                folders,
                backbone,
                backbone.module.eval(),
                TrainState(best=scores(logits, labels)),
                HEAD_ONLY,
            )
            promote_candidate(
                self._folder, HEAD_ONLY
            )  # only now that it is written: a full disk leaves an earlier run as it was
            clear(self._folder, but=BEST)
            return Outcome(
                self._folder, True, finalize(self._folder, self._settings, folders, logits, told)
            )

    def _tell_of_ending(self) -> None:
        self._listener.stopping("The run is done, and its report nearly: it ends in a moment.")

    def _told(self, before: float = 0.0, **values: Any) -> ReportInputs:
        """before: seconds that earlier parts of the run took."""
        seconds = before + time.monotonic() - self._started
        return ReportInputs(seconds, describe(self._processes), self._listener.notes, **values)

    def loop(
        self, folders: ImageFolders, backbone: Backbone, state: dict[str, Any] | None
    ) -> Outcome:
        """Epoch by epoch, from the start or from ``state``."""
        settings, processes = self._settings, self._processes
        scanned = folders.fingerprint
        if state is not None:
            _require_unchanged(
                state["scanned"], folders
            )  # at once, not when all photos are decoded
        left_out = state["left_out"] if state else None
        kit = prepare_training(
            settings, folders, backbone, processes, self._folder, self._listener, left_out=left_out
        )
        doubts = [LabelIssue(*doubt) for doubt in state["doubts"]] if state else kit.doubts
        identity = {
            "settings": settings.to_dict(),
            "scanned": scanned,
            "fingerprint": kit.folders.fingerprint,
            "left_out": sorted(
                {sample.digest for sample in folders.train}
                - {sample.digest for sample in kit.folders.train}
            ),
            "spec": kit.backbone.spec.to_dict(),
            "levels": kit.backbone.levels,
            "notes": self._listener.notes,
            "threads": torch.get_num_threads(),
            "batches": kit.sampler.batches,
            "doubts": [tuple(doubt) for doubt in doubts],
        }
        folders, backbone = kit.folders, kit.backbone
        if state is not None:
            _require_unchanged(state["fingerprint"], folders)
        if state is not None and state["batches"] != kit.sampler.batches:
            raise TrainingError(
                f"An epoch has {kit.sampler.batches} batches now, and had {state['batches']} when the run began.",
                "Go on with as many processes as the run began with.",
            )
        learner = Learner(backbone, settings, kit.class_weights, kit.sampler.steps, processes)
        if state is not None:
            learner.load_state_dict(state["learner"])

        def keep(network: nn.Module, standing: TrainState) -> None:
            discard_candidates(self._folder)  # of epochs since the last save
            self._keep(folders, backbone, network, standing, standing.kept)

        course = LoopContext(
            settings, kit, processes, self._folder, self._started, identity, keep, self._listener
        )
        loop = Loop(
            course, learner, TrainState.from_dict(state["standing"]) if state else TrainState()
        )
        loop.save()  # from here on there is something to resume
        if loop.standing.best is None and processes.is_main:
            clear(self._folder, but=LAST)
        if not loop.run():
            return Outcome(self._folder, False, {})
        if loop.standing.best_epoch == 0:
            self._listener.note(
                "No epoch did better than the head that training began with: that is what was kept."
            )
        elif loop.standing.midway:
            self._listener.note(
                "Kept: the mean of the weights that training began and ended with, better than any epoch's."
            )
        self._listener.working("Writing the report", 0, 0)
        logits = kit.validation.logits(
            channels_last(checkpoint.load(self._folder).network, self._device)
        )
        metrics = {}
        with StopSignal(self._tell_of_ending):
            if processes.is_main:
                before = state["standing"]["seconds"] if state else 0.0
                told = self._told(before, history=loop.standing.history, doubts=doubts)
                metrics = finalize(self._folder, settings, folders, logits, told)
            loop.standing.finished = True
            loop.save()
        return Outcome(self._folder, True, metrics)

    def _keep(
        self,
        folders: ImageFolders,
        backbone: Backbone,
        network: nn.Module,
        standing: TrainState,
        what: str,
    ) -> None:
        """Let weights wait as the next best ones; see ``promote_candidate``."""
        best = cast("Scores", standing.best)
        card = ModelCard(
            labels=folders.classes,
            spec=backbone.spec,
            backbone=backbone.name,
            metrics={
                "accuracy": best.accuracy,
                "loss": best.loss,
                "epoch": standing.best_epoch,
                "midway": standing.midway,
            },
            data={
                "fingerprint": folders.fingerprint,
                "train": len(folders.train),
                "val": len(folders.val),
            },
            versions=_versions(),
        )
        checkpoint.save(
            Trained(network, card, self._settings.to_dict(), backbone.levels),
            self._folder / candidate_name(what),
        )


def _versions() -> dict[str, str]:
    own = {
        "edgetl": __version__,
        "python": platform.python_version(),
    }  # edgetl may run from a checkout
    return own | {name: version(name) for name in _PACKAGES}
