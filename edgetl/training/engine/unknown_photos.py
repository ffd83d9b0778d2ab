"""What a run says of unknown photos: the detector, and how well it does."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.data.unknown_folder import unknown_photos
from edgetl.errors import TrainingError
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN
from edgetl.training.config.run_context import RunContext
from edgetl.training.evaluation.separation import FEWEST, left_out_scores, separate
from edgetl.training.evaluation.unknown_report import StrangePhotos, UnknownReport
from edgetl.training.head.detector_fit import (
    FittedDetector,
    PhotoFeatures,
    fit_detector,
    require_photos,
)
from edgetl.training.head.features import Features, compute_features
from edgetl.training.head.folds import deal_folds, rank_photos
from edgetl.training.head.held_out_answers import HeldOutAnswers
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.checkpoint import Trained

_MOST_PHOTOS = 2_000  # to train and to validate on, of which trained blocks compute new features
_LEAST_PHOTOS = 50  # of each, even where no time is left
_WARM_UP, _TIMED = 8, 64  # photos that tell how long one takes


@dataclass(frozen=True, eq=False)
class UnknownResult:
    """``trained`` with its held-out answers and, if it can be had, the detector.

    report  for the report, or None
    """

    trained: Trained
    report: UnknownReport | None = None


def learn_unknown(
    context: RunContext,
    trained: Trained,
    folders: ImageFolders,
    everything: HeldOutAnswers,
    features: Features | None,
    seconds_left: float,
) -> UnknownResult:
    """Fit the detector to what the kept weights see, and judge it. In the main process.

    everything    the answers for photos that the weights were not fitted to
    features      of all photos by the kept weights, if they are known
    seconds_left  of the time limit, in which others are computed

    Where there can be no detector, a note says why. Photos of ``unknown/`` are only judged with.
    """
    try:
        require_photos(everything)  # before their features are computed
        backbone = trained.as_backbone()
        if features is None:
            answers, train, val = _seen_by(context, backbone, folders, everything, seconds_left)
        else:
            width = backbone.head_layer.in_features
            answers = everything
            train, val = (
                _photo_features(part, features.of(part)[:, :width])
                for part in (folders.train, folders.val)
            )
        refit = bool(trained.card.metrics.get("refit"))
        fitted = fit_detector(answers, train, val, refit=refit)
        strange = _judged_photos(context, backbone, folders, fitted)
    except TrainingError as error:  # such as for features that are several vectors a photo
        context.listener.note(f"Unknown photos can't be told from known ones. {error.message}")
        return UnknownResult(replace(trained, held_out=everything.unscored()))
    samples = [folders.train[row] for row in answers.train]
    samples += [folders.val[row] for row in answers.val]
    left_out = left_out_scores(fitted)
    report = UnknownReport(
        fitted.held_out,
        samples,
        fitted.detector.limits(fitted.held_out.ood_score, KEEP_KNOWN),
        trained.card.temperature,
        separate(left_out),
        np.concatenate([np.empty(0, np.float32), *(scores for _, scores in left_out)]),
        strange,
    )
    metrics = {**trained.card.metrics, "unknown": report.figures()}
    card = replace(trained.card, metrics=metrics)
    kept = replace(trained, card=card, held_out=fitted.held_out, ood=fitted.detector)
    return UnknownResult(kept, report)


def _seen_by(
    context: RunContext,
    backbone: Backbone,
    folders: ImageFolders,
    answers: HeldOutAnswers,
    seconds_left: float,
) -> tuple[HeldOutAnswers, PhotoFeatures, PhotoFeatures]:
    """(answers with their own rows, features of training photos, of the answers' photos)."""
    labels = np.array([sample.label for sample in folders.train])
    ranks = rank_photos(labels, [sample.digest for sample in folders.train])
    rows = deal_folds(labels, ranks, len(folders.classes)).rows[:_MOST_PHOTOS]
    train = [folders.train[row] for row in rows]
    val = [folders.val[row] for row in answers.val[:_MOST_PHOTOS]]
    most, found = _MOST_PHOTOS, None
    compute = partial(compute_features, context, backbone, seen="means", cached=False)
    if math.isfinite(seconds_left):
        end = time.monotonic() + seconds_left
        timed = [*val, *train][:_TIMED]
        found = compute(timed[:_WARM_UP])
        started = time.monotonic()
        found = compute(timed, known=found)
        seconds = (time.monotonic() - started) / max(len(timed) - _WARM_UP, 1)
        affordable = int((end - time.monotonic()) / (2 * max(seconds, 1e-6)))
        most = min(max(affordable, _LEAST_PHOTOS), _MOST_PHOTOS)
    train, val = train[:most], val[:most]
    found = compute([*train, *val], known=found)
    train = found.readable(train)
    chosen = [row for row, sample in enumerate(val) if sample.path not in found.unreadable]
    val = [val[row] for row in chosen]
    seen = _photo_features(train, found.of(train)), _photo_features(val, found.of(val))
    return answers.of_val(chosen), *seen


def _judged_photos(
    context: RunContext, backbone: Backbone, folders: ImageFolders, fitted: FittedDetector
) -> StrangePhotos | None:
    """The photos of ``unknown/`` with their answers and scores; None if there are none."""
    settings, note = context.settings, context.listener.note
    samples = unknown_photos(folders, settings.source.path)
    if samples is None:
        return None
    compute = partial(compute_features, context, backbone, cached=False)
    found = compute(samples, step="Looking at unknown photos", seen="means")
    readable = found.readable(samples)
    if len(readable) < len(samples):
        note(f"{len(samples) - len(readable)} of {len(samples)} photos in unknown/ can't be read.")
    if len(readable) < FEWEST:
        note(
            f"Of unknown/, {len(readable)} can be judged with, not counting photos that are "
            f"trained or validated on; it takes {FEWEST} to say how well such photos are noticed."
        )
    if not readable:
        return None
    values = found.of(readable)
    if backbone.has_linear_head:
        layer = backbone.head_layer
        weight, bias = layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()
        logits = values @ weight.T + bias
    else:
        logits = compute(readable, seen="logits").of(readable)
    return StrangePhotos(readable, logits, fitted.detector.score(values, logits))


def _photo_features(samples: Sequence[Sample], values: NDArray[np.float32]) -> PhotoFeatures:
    labels = np.array([sample.label for sample in samples], np.int64)
    return PhotoFeatures(values, labels, [sample.digest for sample in samples])
