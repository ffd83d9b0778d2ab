"""The features of a run's photos, computed as its settings say."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.data.image_folder import Sample
from edgetl.training.config.run_context import RunContext
from edgetl.training.head.feature_cache import cache_folder
from edgetl.training.head.features import Features, extract_features
from edgetl.training.models.backbones import Backbone


def compute_features(
    context: RunContext,
    backbone: Backbone,
    samples: Sequence[Sample],
    known: Features | None,
    step: str = "Computing features",
) -> Features:
    """``extract_features`` for the photos as they are, reported as ``step``.

    Mirror images and crops would cost time and improved nothing; see scripts/experiments.md.
    """
    return extract_features(
        backbone,
        samples,
        cache=cache_folder(context.settings.feature_cache),
        device=context.device,
        threads=context.settings.workers or None,
        step=step,
        progress=context.listener.progress,
        known=known,
    )
