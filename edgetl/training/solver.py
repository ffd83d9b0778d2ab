"""The head of a frozen backbone, solved for in one go: features of all photos, then one convex problem.

This is the whole of the ``features`` strategy, and where the other strategies begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.errors import TrainingError
from edgetl.training.backbones import Backbone
from edgetl.training.dataset import ImageFolders
from edgetl.training.features import Progress, extract_features
from edgetl.training.head import Head, fit_head

TRAIN_VIEWS = ("plain",)


@dataclass(frozen=True)
class Solved:
    """What ``solve_head`` found; the backbone's head holds it already.

    folders     the photos, less training photos that could not be read
    head        the solution, and what cross-validation said
    val_logits  float32 [validation photos, classes], in the order of ``folders.val``
    runtime     what computed the features
    cached      photos whose features were kept from an earlier run
    notes       sentences for the user
    """

    folders: ImageFolders
    head: Head
    val_logits: NDArray[np.float32]
    runtime: str
    cached: int
    notes: tuple[str, ...]


def solve_head(
    backbone: Backbone,
    folders: ImageFolders,
    *,
    cache: Path | None = None,
    device: torch.device | None = None,
    threads: int | None = None,
    class_weights: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Solved:
    """Fit the head of ``backbone`` to ``folders.train`` and put it in place; nothing else of the network changes.

    cache     folder to keep features in, or None
    device    where the backbone runs (default: the CPU)
    threads   photos worked on at a time (default: one for each core)
    progress  called after each photo with (done, total)

    Interrupted, it loses nothing that is in the cache. The same photos give the same weights, bit for bit, on a CPU.
    Raises DataError for a validation photo that can't be read, TrainingError for a head that is not linear.
    """
    samples = folders.train + folders.val
    features = extract_features(
        backbone, samples, views=TRAIN_VIEWS, cache=cache, device=device, threads=threads, progress=progress
    )
    folders = folders.without(features.unreadable)
    head = fit_head(
        features.of(folders.train),
        [sample.label for sample in folders.train],
        len(folders.classes),
        digests=[sample.digest for sample in folders.train],
        class_weights=class_weights,
        device=device,
    )
    place_head(backbone, head)
    val_logits = head.logits(features.of(folders.val)[:, 0])
    return Solved(folders, head, val_logits, features.runtime, features.cached, features.notes)


def place_head(backbone: Backbone, head: Head) -> None:
    """Copy a solution into the backbone's classifier layer."""
    layer = backbone.module.get_submodule(backbone.head)
    if not isinstance(layer, nn.Linear) or layer.weight.shape != head.weight.shape:
        raise TrainingError(f"The head of {backbone.name} does not take weights {list(head.weight.shape)}.")
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight))
        layer.bias.copy_(torch.from_numpy(head.bias))
