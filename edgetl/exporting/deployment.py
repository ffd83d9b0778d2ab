"""What of a trained run goes to the device, beside its weights: the score and its threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from edgetl.evaluation.conformal import least_photos
from edgetl.exporting.formats.mapped_network import require_maps
from edgetl.runtime.bundle.held_out import MOST_ANSWERS, HeldOut
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import FEATURES
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN, MEASURED
from edgetl.training.models.checkpoint import Trained
from edgetl.training.models.evidence import FeatureMaps
from edgetl.training.models.ood_detector import OODDetector
from edgetl.training.models.tapped_network import Tap, TappedNetwork

_MOST_LOGITS = 2_000_000  # 8 MB of a bundle: 400 photos of 5,000 classes


@dataclass(frozen=True)
class Deployment:
    """A classifier to export.

    network   in eval mode, on the CPU: normalized float32 [N, 3, h, w] → logits float32
              [N, classes]; with a detector also ``features`` float32 [N, features]
    card      its labels, preprocessing and temperature; with a detector also its threshold
    detector  for the score of photos unlike the training photos; None: the model gives none
    held_out  answers to include in the bundle; None: none
    maps      of the network, for evidence in the ONNX models; None: they give none
    """

    network: nn.Module
    card: ModelCard
    detector: OODDetector | None = None
    held_out: HeldOut | None = None
    maps: FeatureMaps | None = None


def deployment_of(
    trained: Trained, *, keep_known: float = KEEP_KNOWN, unknown: bool = True, maps: bool = False
) -> Deployment:
    """``trained`` as it is exported; without score and held-out answers if ``unknown`` is False.

    keep_known  share of known photos that the threshold keeps, above 0, below 1
    maps        with evidence in the ONNX models

    Raises ExportError if maps are asked for and the sums of the network's would not be its logits.
    """
    own_maps = require_maps(trained) if maps else None
    metrics = dict(trained.card.metrics)
    # Once in the card: with the threshold that they are about, or not at all.
    figures = metrics.pop("unknown", {})
    card = replace(trained.card, metrics=metrics)
    if not unknown:
        return Deployment(trained.network, card, maps=own_maps)
    held_out = trained.held_out
    some = None
    if held_out is not None and len(held_out.labels):  # copies of one photo leave none held out
        photos = len(held_out.labels)
        most = min(MOST_ANSWERS, _MOST_LOGITS // len(card.labels), photos)
        some = held_out.some(np.arange(most) * photos // most)  # evenly spread over them
    if trained.ood is None or held_out is None or not len(held_out.ood_score):
        return Deployment(trained.network, card, held_out=some, maps=own_maps)
    measured = {kind: figures[kind] for kind in MEASURED if kind in figures}
    figures = {"photos": len(held_out.ood_score), **measured}
    limits = replace(trained.ood.limits(held_out.ood_score, keep_known), figures=figures)
    network = TappedNetwork(trained.network, {FEATURES: Tap(trained.head, pooled=True)})
    return Deployment(network, replace(card, unknown=limits), trained.ood, some, own_maps)


def deployment_warnings(deployment: Deployment, run: Path, *, asked: bool) -> Iterator[str]:
    """Where a threshold can't be had, or can't be relied on.

    asked  the share of known photos to keep was given
    """
    if (limits := deployment.card.unknown) is None:
        if asked:
            yield (
                f"{run} can't tell unknown photos, so that there are none to keep: it was trained "
                "by an earlier version, or imported, or its score is left out. Train again."
            )
        return
    photos, least = limits.figures["photos"], least_photos(limits.keep_known)
    if photos >= least:
        return
    yield (
        f"To keep {limits.keep_known:.4g} of known photos takes the scores of {least:,} held-out "
        f"photos, and the run has {photos:,}: the threshold is the highest of them, and may refuse "
        "more. Add photos, or lower --keep-known."
    )
