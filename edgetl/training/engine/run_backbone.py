"""The backbone of a run: built, with its preprocessing changed as the settings say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from edgetl.errors import TrainingError
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.shell import shell_word
from edgetl.training.config.listener import Listener
from edgetl.training.config.settings import SOLVER, TrainSettings
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build
from edgetl.training.models.batch_norm import sync_batch_norm
from edgetl.training.torch_env.distributed import Processes
from edgetl.training.torch_env.randomness import HEAD, torch_seed


def build_backbone(
    settings: TrainSettings,
    classes: Sequence[str],
    *,
    weights: str | None = None,
    processes: Processes | None = None,
) -> Backbone:
    """The backbone of ``settings`` and its preprocessing, with a new head for ``classes``.

    The head is random, but the same for the same seed.

    weights    in place of those of ``settings``
    processes  that train it together

    Raises TrainingError if it can't be built, or not with these settings.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(settings.seed, HEAD))
        weights = settings.weights if weights is None else weights
        backbone = build(settings.backbone, len(classes), weights=weights, labels=classes)
    if settings.strategy == "last-blocks" and settings.blocks > len(backbone.blocks):
        raise TrainingError(
            f"{backbone.name} has {len(backbone.blocks)} blocks, not {settings.blocks}.",
            "Give a smaller --blocks.",
        )
    if processes and settings.norm_statistics and settings.optimizer != SOLVER:
        backbone = sync_batch_norm(backbone, processes)
    resized = replace(backbone, spec=wanted_spec(settings, backbone.spec))
    if resized.size == backbone.size:
        return resized
    refused = backbone.refusal(resized.size)
    if refused is not None:
        height, width = resized.size
        raise TrainingError(
            f"{backbone.name} can't take photos of {height}×{width} pixels.",
            f"Leave out --image-size; it takes {'×'.join(map(str, backbone.size))}.",
        ) from refused
    return resized


def wanted_spec(settings: TrainSettings, published: PreprocessSpec) -> PreprocessSpec:
    """The published preprocessing, changed as ``settings`` say; all sizes keep their proportions.

    With ``resize="auto"``, ``choose_resize`` may change it again.
    """
    height, width = published.input_size
    side = (settings.image_size, settings.image_size) if settings.image_size else (height, width)
    if settings.resize == "squash":
        return replace(published, resize="squash", size=side, crop=None)
    if side == (height, width):
        return published
    factor = settings.image_size / min(height, width)
    if not isinstance(published.size, tuple):
        return replace(published, size=round(published.size * factor), crop=side)
    if published.crop is None:
        return replace(published, size=side)
    rows, columns = published.size
    return replace(published, size=(round(rows * factor), round(columns * factor)), crop=side)


def note_on_weights(backbone: Backbone, settings: TrainSettings, listener: Listener) -> None:
    """Note where pretrained weights are missing, or their classifier is not what training uses."""
    if settings.weights == "none" and settings.strategy == "features":
        listener.note(
            "The backbone is random and stays so: its features say little about photos. "
            "--strategy full trains it, too."
        )
    classes, given = len(backbone.head_layer.weight), backbone.file_head
    is_fitted = settings.optimizer == SOLVER or (settings.warm_head and backbone.has_linear_head)
    if given is None or (given.classes == classes and not is_fitted):
        return
    kept = ""
    if given.classes == classes and not given.by_edgetl:  # a run needs no import
        kept = (
            " To keep the network as it is, import it: edgetl import "
            f"{shell_word(settings.weights)} --backbone {backbone.name} --labels LABELS -o RUN"
        )
    listener.note(
        f"The classifier in {settings.weights}, for {given.classes:,} classes, is not used: "
        f"a new one is trained for the {classes:,} classes of these photos.{kept}"
    )
