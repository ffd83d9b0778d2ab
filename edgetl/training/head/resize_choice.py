"""How photos are resized to the network's input: cropped, as published with its weights, or whole.

A crop shows the middle of a photo larger and loses the rest. Where the subject is in the middle,
that is right more often; where it fills the photo, the end of a sleeve or the top of a bottle is
lost. A head's cross-validated loss on some of the training photos tells which it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.run_context import RunContext
from edgetl.training.head.features import Features, compute_features
from edgetl.training.head.linear_head import improvement
from edgetl.training.input.photo_shape import SIZE_STEP, sample_aspects, size_of_aspect
from edgetl.training.models.backbone import Backbone, Level
from edgetl.training.optim.losses import class_weights

_NEGLIGIBLE_LOSS = 0.05  # of a photo's area: a crop that loses less needs no comparison
# The photos that decide: one in _SHARE, within these limits, but at least so many of each class.
_SHARE = 8
_FEWEST, _MOST = 300, 1000
_OF_EACH_CLASS = 5
# Standard errors: a smaller difference, either way, is tried again with more photos; whole photos
# must be better by _ENOUGH in the end.
_SURE, _ENOUGH = 2.0, 1.0


def choose_resize(
    context: RunContext, backbone: Backbone, levels: tuple[Level, ...], folders: ImageFolders
) -> tuple[Backbone, Features | None]:
    """Choose how photos are resized.

    levels  that a head may see, too; see ``extract_features``

    → (backbone with the chosen spec; the features computed with it so far, if any)
    """
    whole = None
    if context.settings.resize == "auto" and backbone.has_linear_head:
        whole = _uncropped(backbone, sample_aspects(folders.train))
    if whole is None:
        return backbone, None
    candidates = {"cropped": backbone, "whole": whole}
    found: dict[str, Features] = {}
    better_by = 0.0
    for some in _growing_subsets(folders.train):
        for name, candidate in candidates.items():
            found[name] = compute_features(
                context,
                candidate,
                some,
                step=f"Trying photos {name}",
                known=found.get(name),
                levels=levels,
            )
        readable = found["whole"].readable(found["cropped"].readable(some))
        if not readable:
            continue
        better_by = _improvement(context, backbone, folders, readable, found)
        if abs(better_by) > _SURE:
            break
    if not better_by > _ENOUGH:  # also if it is NaN
        return backbone, found["cropped"]
    height, width = whole.size
    context.listener.note(
        f"Photos are seen whole, {height} pixels high and {width} wide: "
        "cross-validation preferred it to the usual crop."
    )
    return whole, found["whole"]


def _improvement(
    context: RunContext,
    backbone: Backbone,
    folders: ImageFolders,
    samples: Sequence[Sample],
    found: dict[str, Features],
) -> float:
    """By how many standard errors whole photos lower the loss of a fitted head."""
    layer = backbone.head_layer
    own = int(layer.in_features)  # without those of levels
    return improvement(
        found["whole"].of(samples)[:, :own],
        found["cropped"].of(samples)[:, :own],
        [sample.label for sample in samples],
        int(layer.out_features),
        digests=[sample.digest for sample in samples],
        class_weights=class_weights(context.settings, folders),
        device=context.device,
    )


def _uncropped(backbone: Backbone, aspects: Sequence[float]) -> Backbone | None:
    """``backbone`` with a spec that crops nothing, for as many pixels; None if little is cropped.

    aspects  width / height of typical photos; the input gets their shape if the network takes it
    """
    spec = backbone.spec
    if np.mean([_cropped_area(spec, aspect) for aspect in aspects]) < _NEGLIGIBLE_LOSS:
        return None
    shape = size_of_aspect(math.sqrt(math.prod(backbone.size)), float(np.median(aspects)))
    if shape[0] == shape[1] or not _takes(backbone, shape):
        shape = backbone.size
    return replace(backbone, spec=replace(spec, resize="squash", size=shape, crop=None))


def _takes(backbone: Backbone, size: tuple[int, int]) -> bool:
    """Whether the network takes photos of another shape, in every runtime.

    Many transformers take squares of one size. Some only count their patches, and would take
    18 × 32 for 24 × 24: they refuse a neighbouring size. ONNX has no adaptive pooling to a size
    that does not divide the map's.
    """
    pools = (
        part
        for part in backbone.module.modules()
        if isinstance(part, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d))
    )
    if any(pool.output_size not in (1, (1, 1)) for pool in pools):
        return False
    neighbour = (size[0], size[1] + SIZE_STEP)
    return all(backbone.refusal(shape) is None for shape in (size, neighbour))


def _cropped_area(spec: PreprocessSpec, aspect: float) -> float:
    """The share of a photo's area that is cropped. aspect: its width / height."""
    size = (1000, max(round(1000 * aspect), 1))
    return 1.0 - math.prod(spec.output_size(*size)) / math.prod(spec.resized_size(*size))


def _growing_subsets(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Photos to decide by, and more of them, the first included, if those don't say enough."""
    ordered, classes = evenly_ordered(samples), len({sample.label for sample in samples})
    least = max(_FEWEST, _OF_EACH_CLASS * classes)
    most = min(max(_MOST, least), len(samples))
    few = min(max(len(samples) // _SHARE, least), most)
    return [ordered[:count] for count in sorted({few, most})]


def evenly_ordered(samples: Sequence[Sample]) -> list[Sample]:
    """In an order whose first photos are some of each class, then the same share of all.

    It does not depend on where the photos are.
    """
    totals = np.bincount([sample.label for sample in samples])
    seen: dict[int, int] = {}
    places = []
    for sample in sorted(samples, key=lambda sample: sample.digest):
        seen[sample.label] = seen.get(sample.label, 0) + 1
        further = seen[sample.label] > _OF_EACH_CLASS
        share = seen[sample.label] / totals[sample.label]
        places.append((further, share, sample.digest, str(sample.path), sample))
    return [sample for *_, sample in sorted(places, key=lambda place: place[:4])]
