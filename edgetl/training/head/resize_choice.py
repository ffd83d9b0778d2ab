"""How photos are fitted to the network's input: cropped, as published with its weights, or whole. The photos decide.

A crop shows what is in the middle larger, and loses what is not. Where photos have their subject in the middle, that is
right more often; where the subject fills the photo, what is lost is the end of a sleeve or the top of a bottle. Which it is
shows in a head's cross-validated loss on some of the training photos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from edgetl.data.image_folder import Sample
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.listener import Listener
from edgetl.training.config.settings import TrainSettings
from edgetl.training.head.features import Features
from edgetl.training.head.head_solver import compute_features
from edgetl.training.head.linear_head import improvement
from edgetl.training.input.photo_shape import SIZE_STEP, sample_aspects, size_of_aspect
from edgetl.training.models.backbones import Backbone, refusal
from edgetl.training.models.multi_level import find_levels, own_features, with_levels

_LITTLE = 0.05  # of a photo: where a crop loses less, there is nothing to choose
_SHARE = 8  # one in so many photos decides, but at least and at most …
_FEWEST, _MOST = 300, 1000
_OF_EACH_CLASS = 5  # … and so many of each class that has them, however many that makes
_SURE = 2.0  # standard errors, either way; where the loss differs by less, more photos are asked, and in the end …
_ENOUGH = 1.0  # … this is enough to part from what was published


def choose_resize(
    backbone: Backbone,
    samples: Sequence[Sample],
    class_weights: torch.Tensor | None,
    device: torch.device,
    settings: TrainSettings,
    listener: Listener,
) -> tuple[Backbone, Features | None]:
    """Before a head is solved for: let it see earlier levels, and all of the photos where that does better.

    → (backbone, with levels and the spec that was chosen; what ``compute_features`` found with these, if it was asked)
    """
    backbone = with_levels(backbone, find_levels(backbone))
    whole = None
    if settings.resize == "auto" and backbone.has_linear_head:
        whole = _whole(backbone, sample_aspects(samples))
    if whole is None:
        return backbone, None
    ways = {"cropped": backbone, "whole": whole}
    found: dict[str, Features] = {}
    weights = class_weights.tolist() if class_weights is not None else None
    classes = int(cast("Any", backbone.module.get_submodule(backbone.head)).out_features)
    quiet = Listener()  # what is said of the one that is not taken would not be true of the run
    quiet.working = listener.working  # type: ignore[method-assign]
    better = 0.0
    for some in _few_and_more(samples):
        for how, shown in ways.items():
            found[how] = compute_features(
                shown, some, device, settings, quiet, found.get(how), f"Trying photos {how}"
            )
        read = [
            sample
            for sample in some
            if not any(sample.path in features.unreadable for features in found.values())
        ]
        if not read:
            continue
        cropped, uncropped = (
            features.of(read)[:, : own_features(backbone)] for features in found.values()
        )
        labels, digests = [sample.label for sample in read], [sample.digest for sample in read]
        better = improvement(
            uncropped,
            cropped,
            labels,
            classes,
            digests=digests,
            class_weights=weights,
            device=device,
        )
        if abs(better) > _SURE:
            break
    if not better > _ENOUGH:  # nor where it is no number
        return backbone, found["cropped"]
    height, width = whole.size
    listener.note(
        f"Photos are seen whole, {height} pixels high and {width} wide: cross-validation preferred it to the usual crop."
    )
    return whole, found["whole"]


def _whole(backbone: Backbone, aspects: Sequence[float]) -> Backbone | None:
    """``backbone`` with a spec that loses nothing of photos, of as many pixels as its own; None where its own loses little.

    aspects  width / height of typical photos, whose shape it has, where the network takes that
    """
    spec = backbone.spec
    if np.mean([_lost(spec, aspect) for aspect in aspects]) < _LITTLE:
        return None
    height, width = size_of_aspect(math.sqrt(math.prod(backbone.size)), float(np.median(aspects)))
    return _squashed(
        backbone,
        (height, width) if height != width and _takes(backbone, (height, width)) else backbone.size,
    )


def _squashed(backbone: Backbone, size: tuple[int, int]) -> Backbone:
    return replace(backbone, spec=replace(backbone.spec, resize="squash", size=size, crop=None))


def _takes(backbone: Backbone, size: tuple[int, int]) -> bool:
    """Whether the network takes photos of another shape, on every runtime.

    Many transformers take squares of one size; some count their patches alone, and would take 18 × 32 of them for 24 × 24:
    they refuse a neighbouring size. ONNX has no pooling to a number of places that does not divide the map's.
    """
    pools = (
        part
        for part in backbone.module.modules()
        if isinstance(part, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d))
    )
    if any(pool.output_size not in (1, (1, 1)) for pool in pools):
        return False
    neighbour = (size[0], size[1] + SIZE_STEP)
    return all(refusal(_squashed(backbone, shape)) is None for shape in (size, neighbour))


def _lost(spec: PreprocessSpec, aspect: float) -> float:
    """The share of a photo's area that is cut off. aspect: its width / height."""
    size = (1000, max(round(1000 * aspect), 1))
    return 1.0 - math.prod(spec.output_size(*size)) / math.prod(spec.resized_size(*size))


def _few_and_more(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Photos to decide by, and more to decide by where those don't say enough, which hold them.

    The same ones wherever they lie: some of each class, and the same share of each beyond them.
    """
    totals, seen, places = np.bincount([sample.label for sample in samples]), dict[int, int](), []
    for sample in sorted(samples, key=lambda sample: sample.digest):
        seen[sample.label] = seen.get(sample.label, 0) + 1
        further = seen[sample.label] > _OF_EACH_CLASS
        places.append(
            (
                further,
                seen[sample.label] / totals[sample.label],
                sample.digest,
                str(sample.path),
                sample,
            )
        )
    ordered = [sample for *_, sample in sorted(places, key=lambda place: place[:4])]
    least = max(_FEWEST, _OF_EACH_CLASS * len(seen))
    most = min(max(_MOST, least), len(samples))
    few = min(max(len(samples) // _SHARE, least), most)
    return [ordered[:count] for count in sorted({few, most})]
