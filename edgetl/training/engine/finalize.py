"""The end of a run: the temperature, the final metrics and the report, all of the kept weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from edgetl.data.image_folder import ImageFolders
from edgetl.data.photo_digests import pack
from edgetl.evaluation.metrics import ClassMetrics, class_metrics, metrics_summary
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.stop_signal import StopSignal
from edgetl.training.config.model_trial import ModelTrial
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.run_folder import BEST, candidate_name, clear, promote_candidate
from edgetl.training.config.settings import OPTIONS, SOLVER, TrainSettings
from edgetl.training.engine.earlier_answers import EarlierAnswers, ask_earlier_run
from edgetl.training.engine.kept_weights import snapshot
from edgetl.training.engine.time_budget import TimeBudget
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.engine.unknown_photos import learn_unknown
from edgetl.training.evaluation.explained_answers import explain_answers
from edgetl.training.evaluation.held_out_promises import held_out_promises
from edgetl.training.evaluation.report import ReportData, write_report
from edgetl.training.evaluation.run_comparison import RunComparison, write_comparison
from edgetl.training.evaluation.run_records import (
    label_issue_rows,
    validation_rows,
    write_history,
    write_metrics,
    write_photo_tables,
)
from edgetl.training.head.cross_validation import CVResult
from edgetl.training.head.features import Features
from edgetl.training.head.head_preparation import PreparedHead, put_into
from edgetl.training.head.held_out_answers import HeldOutAnswers
from edgetl.training.head.label_issues import LabelIssue
from edgetl.training.head.temperature import calibrate
from edgetl.training.models import checkpoint
from edgetl.training.models.checkpoint import Trained
from edgetl.training.torch_env.distributed import describe

_UNNAMED = ("columns", "root", "budget", "max_size", "profile", "candidates")  # if left empty
_FINAL = "final"  # key of the candidate with the temperature


@dataclass(frozen=True, eq=False)
class RunOutcome:
    """What training has led to.

    trained          the kept weights; their card knows the epoch, and whether the head was fitted
                     once more, to the validation photos as well
    folders          without the photos that can't be read
    logits           float32 [N, classes] of ``trained`` for the validation photos, of such a head
                     before that
    label_issues     training photos whose labels are likely wrong; their rows in ``folders``
    history          of the epochs, for the report
    cross_validation, features  of a fitted head, if that is the result
    earlier_seconds  that earlier parts of an interrupted run took
    """

    trained: Trained
    folders: ImageFolders
    logits: NDArray[np.float32]
    label_issues: Sequence[LabelIssue]
    history: Sequence[Mapping[str, Any]] = ()
    cross_validation: CVResult | None = None
    features: Features | None = None
    earlier_seconds: float = 0.0


def finalize_head(
    context: RunContext,
    prepared: PreparedHead,
    network: nn.Module | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> TrainResult:
    """``finalize`` a run whose result is the fitted head. In the main process.

    network  the backbone as it was before training went on, if it did
    history  the rows of epochs that did no better
    """
    assert prepared.final is not None and prepared.val_logits is not None
    backbone = prepared.backbone
    if network is not None:
        backbone = replace(backbone, module=network)
    put_into(backbone, prepared.final)
    metrics = {"epoch": 0, "midway": False, "refit": context.settings.refit}
    outcome = RunOutcome(
        snapshot(context, prepared.folders, backbone, backbone.module, metrics),
        prepared.folders,
        prepared.val_logits,
        prepared.head.label_issues,
        history,
        prepared.head.cross_validation,
        prepared.features,
    )
    return finalize(context, outcome)


def finalize(
    context: RunContext, outcome: RunOutcome, when_done: Callable[[], object] = lambda: None
) -> TrainResult:
    """Write the checkpoint, report.html, the tables of photos and metrics.json.

    when_done  called when all is written

    In the main process. The metrics are written last: a run that has them is complete. After an
    interruption, this can be done again. An earlier run stays complete until the new weights are on
    the disk, and nothing of it is left when they are put in place. Raises CheckpointError if
    something can't be written.
    """
    before = ask_earlier_run(context, outcome.folders, outcome.cross_validation, outcome.features)
    listener = context.listener
    listener.progress("Writing the report", 0, 0)
    # A signal does not stop the run here: half of the files would be of no use.
    end = "Training is done, and the report nearly: the run ends in a moment."
    with StopSignal(partial(listener.stopping, end)):
        result = _write_files(context, outcome, before)
        when_done()
    return result


def _write_files(
    context: RunContext, outcome: RunOutcome, before: EarlierAnswers | None
) -> TrainResult:
    """The checkpoint, the report, the tables and the metrics.

    before  what the run that this one is compared with answers, if there is one
    """
    trained, folders, logits = outcome.trained, outcome.folders, outcome.logits
    judged = outcome.cross_validation
    budget = TimeBudget(context.started - outcome.earlier_seconds, context.settings.max_time)
    seconds, seconds_left = budget.seconds(), budget.seconds_left()
    labels = np.array([sample.label for sample in folders.val], np.int64)
    # Cross-validation has given the logits the scale that suits photos not trained on.
    temperature = 1.0 if judged else calibrate(logits, labels)
    untempered, probabilities = _softmax(logits), _softmax(logits, temperature)
    metrics = metrics_summary(probabilities, labels, untempered=untempered)
    kept = ("epoch", "midway", "refit")
    metrics |= {name: value for name, value in trained.card.metrics.items() if name in kept}
    held_out = HeldOutAnswers.collect(folders, logits, judged)
    answers, promises = held_out_promises(held_out, folders.classes, temperature)
    card = replace(trained.card, metrics=metrics, temperature=temperature, promises=promises)
    trained = replace(trained, card=card)
    unknown = learn_unknown(context, trained, folders, held_out, outcome.features, seconds_left)
    _put_in_place(context, unknown.trained, outcome)
    classes = class_metrics(probabilities, labels, card.labels)
    since = before.compare(folders, probabilities, judged) if before else None
    evidence = explain_answers(context, trained, folders.val, probabilities)
    report = ReportData(
        card=card,
        classes=classes,
        validated_on=_validated_on(context.settings, folders),
        probabilities=probabilities,
        untempered=untempered if temperature != 1 else None,
        targets=labels,
        paths=[sample.path for sample in folders.val],
        seconds=seconds,
        device=describe(context.processes),
        train_counts=folders.train_counts,
        settings=_effective(context.settings, folders),
        history=outcome.history,
        cross_validation=judged,
        trials=context.trials,
        label_issues=[
            (folders.train[issue.photo], issue.predicted, issue.label_error)
            for issue in outcome.label_issues
        ],
        warnings=context.listener.notes,
        since=since,
        held_out=answers if promises else None,
        evidence=evidence,
        unknown=unknown.report,
    )
    write_report(context.folder, report)
    _write_tables(context.folder, outcome, probabilities, since)
    metrics = _run_metrics(unknown.trained.card, classes, context.trials)
    write_metrics(context.folder, metrics)
    return TrainResult(context.folder, True, metrics, context.settings, since)


def _write_tables(
    folder: Path,
    outcome: RunOutcome,
    probabilities: NDArray[np.float32],
    since: RunComparison | None,
) -> None:
    """Those of the photos, and what differs from an earlier run."""
    if since is not None:
        write_comparison(folder, since)
    write_photo_tables(
        folder,
        validation_rows(outcome.folders, probabilities),
        label_issue_rows(outcome.folders, outcome.label_issues),
    )


def _put_in_place(context: RunContext, trained: Trained, outcome: RunOutcome) -> None:
    """Write the checkpoint, once nothing of an earlier run is left."""
    folders, history = outcome.folders, outcome.history
    trained_on = folders.train + (folders.val if trained.card.metrics.get("refit") else ())
    trained = replace(
        trained,
        # Those of now: the photos may have moved since these weights were kept.
        settings=context.settings.to_dict(),
        photos=pack(sample.digest for sample in trained_on),
    )
    checkpoint.save(trained, context.folder / candidate_name(_FINAL))
    if context.settings.optimizer == SOLVER:  # others did it when they saved their state
        clear(context.folder, but=BEST)
        if history:
            write_history(context.folder, history)
    promote_candidate(context.folder, _FINAL)


def _softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """In double precision, by rows."""
    probabilities: NDArray[np.float64] = softmax(logits.astype(np.float64) / temperature, axis=1)
    return probabilities.astype(np.float32)


def _run_metrics(
    card: ModelCard, classes: Sequence[ClassMetrics], trials: Sequence[ModelTrial]
) -> dict[str, Any]:
    """What metrics.json holds."""
    metrics = {
        **card.metrics,
        "temperature": card.temperature,
        "classes": [asdict(found) for found in classes],
    }
    return {**metrics, "candidates": [asdict(trial) for trial in trials]} if trials else metrics


def _validated_on(settings: TrainSettings, folders: ImageFolders) -> str:
    if not folders.has_val_folder:
        return f"{folders.val_share:.1%} of the photos, by their content"
    if settings.source.is_stored:
        return "the photos marked val"
    return "val in the list" if settings.source.is_list else "the folder val/"


def _effective(settings: TrainSettings, folders: ImageFolders) -> dict[str, Any]:
    """The settings that had an effect."""
    unused = {name for name in OPTIONS if not settings.has_effect(name)}
    if folders.has_val_folder:
        unused.add("val_fraction")
    unused |= {name for name in _UNNAMED if not getattr(settings, name)}
    return {name: value for name, value in settings.to_dict().items() if name not in unused}
