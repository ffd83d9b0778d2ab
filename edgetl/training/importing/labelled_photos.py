"""How an imported network does on labelled photos, and which mistake would explain a poor result.

A wrong order of the labels or the channels, and another mean and std, are no errors anywhere: the
network only answers worse. So they are tried, where the photos say more than chance would.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import softmax
from scipy.stats import binomtest
from torch import Tensor, nn

from edgetl.data.image_folder import Sample
from edgetl.errors import DataError
from edgetl.evaluation.metrics import class_metrics, metrics_summary
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.machine import cores
from edgetl.system.progress import Progress, no_progress
from edgetl.training.evaluation.validation import Validation
from edgetl.training.torch_env.distributed import Processes

_TRIED_PHOTOS = 128  # evenly spread: each mistake takes one answer for each of them
_CHANCE = 1e-3  # largest probability that a better result is chance
_MIN_EXPLAINED = 0.5  # accuracy with an order of the labels that was made from the answers
_LISTED = 10  # labels in a sentence
_NO_BETTER = (
    "The accuracy is no better than that of always answering the most frequent label. Are the "
    "labels, the size and the preprocessing those of the training?"
)
# Mean and std: ImageNet's, and for inputs within -1..1, 0..1 and 0..255.
_NORMALIZATIONS = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
)


def measure(
    network: nn.Module,
    spec: PreprocessSpec,
    labels: Sequence[str],
    samples: Sequence[Sample],
    progress: Progress,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Classify all ``samples``, whose labels are indices into ``labels``.

    network  normalized float32 [N, 3, h, w] → logits; in eval mode, on the CPU

    Returns (metrics, warnings): the metrics as a training run writes them, with ``classes``; the
    photos that can't be read, and likely mistakes. Raises DataError if no photo can be read.
    """
    logits, truth, unreadable = _classify(network, spec, samples, progress)
    if not len(truth):
        raise DataError(f"None of {len(samples):,} photos can be read.")
    probabilities = softmax(logits.astype(np.float64), axis=1).astype(np.float32)
    metrics = metrics_summary(probabilities, truth)
    classes = [asdict(found) for found in class_metrics(probabilities, truth, labels)]
    warnings = [f"{path} can't be read, and is left out: {why}" for path, why in unreadable.items()]
    readable = [sample for sample in samples if sample.path not in unreadable]
    some = slice(None, None, 1 + (len(readable) - 1) // _TRIED_PHOTOS)
    mistakes = likely_mistakes(network, spec, labels, readable[some], logits[some], progress)
    most_frequent = np.bincount(truth).max() / len(truth)
    # Where all photos are of one class, always answering that could not be beaten.
    if not mistakes and metrics["accuracy"] <= most_frequent < 1:
        mistakes = (_NO_BETTER,)
    return {**metrics, "classes": classes}, (*warnings, *mistakes)


def likely_mistakes(
    network: nn.Module,
    spec: PreprocessSpec,
    labels: Sequence[str],
    samples: Sequence[Sample],
    logits: NDArray[np.float32],
    progress: Progress,
) -> tuple[str, ...]:
    """A sentence that names what would answer significantly more photos right, if anything does.

    samples  photos that can be read
    logits   float32 [N, classes] of these photos
    """
    truth = np.array([sample.label for sample in samples])
    answers = logits.argmax(1)
    right = answers == truth
    if 0.5 ** int((~right).sum()) > _CHANCE:
        return ()  # it could be chance, even if all of these became right
    found: list[tuple[int, str]] = []
    order = _best_order(answers, truth, len(labels))
    if (order[answers] == truth).mean() >= _MIN_EXPLAINED:
        found += _if_better(right, order[answers] == truth, _in_words(order, labels))
    variants = list(_variants(network, spec))
    for number, (mistake, changed, changed_spec) in enumerate(variants):
        progress("Trying likely mistakes", number, len(variants))
        other = _classify(changed, changed_spec, samples)[0].argmax(1)
        found += _if_better(right, other == truth, mistake)
    most = max((count for count, _ in found), default=0)
    best = [mistake for count, mistake in found if count == most]
    if not best:
        return ()
    return (
        f"It looks as if {', or '.join(best)}: {most} of {len(samples)} photos would then be "
        f"answered right; now {int(right.sum())} are.",
    )


def _classify(
    network: nn.Module,
    spec: PreprocessSpec,
    samples: Sequence[Sample],
    progress: Progress = no_progress,
) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[Path, str]]:
    """(logits and labels of the photos that can be read; the other photos, and why)."""
    processes = Processes(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        photos = Validation(
            samples, spec, processes, Path(folder), threads=cores(), progress=progress
        )
        progress("Classifying the photos", 0, 0)
        empty = np.empty((0, 0), np.float32)
        logits = photos.logits(network) if len(photos.labels) else empty
    return logits, photos.labels, photos.unreadable


def _best_order(
    answers: NDArray[np.int64], truth: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """int64 [classes]: for each output, the label that makes most answers right."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (answers, truth), 1)
    # Outputs about which the photos say nothing keep their labels.
    _, order = linear_sum_assignment(counts + 1e-3 * np.eye(classes), maximize=True)
    return np.asarray(order, np.int64)


def _in_words(order: NDArray[np.int64], labels: Sequence[str]) -> str:
    names = [labels[index] for index in order]
    more = f" … ({len(names)} in all)" if len(names) > _LISTED else ""
    how = ", sorted by name" if names == sorted(names) else ""
    return f"the labels are in another order{how} ({', '.join(names[:_LISTED])}{more})"


def _if_better(
    right: NDArray[np.bool_], changed: NDArray[np.bool_], mistake: str
) -> list[tuple[int, str]]:
    """(photos answered right, ``mistake``), if these are significantly more (a sign test)."""
    gained, lost = int((changed & ~right).sum()), int((right & ~changed).sum())
    if not gained or binomtest(gained, gained + lost, alternative="greater").pvalue > _CHANCE:
        return []
    return [(int(changed.sum()), mistake)]


class _SwappedChannels(nn.Module):
    """``network`` on photos of which red and blue are swapped."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, normalized: Tensor) -> Tensor:
        logits: Tensor = self.network(normalized.flip(1))
        return logits


def _variants(
    network: nn.Module, spec: PreprocessSpec
) -> Iterator[tuple[str, nn.Module, PreprocessSpec]]:
    """Mistakes: (in words, and the network and the preprocessing without it)."""
    # What is swapped after it was normalized was normalized with swapped values.
    swapped = replace(spec, mean=spec.mean[::-1], std=spec.std[::-1])
    bgr = "it was trained on BGR photos, as of OpenCV (import a module: network(photos.flip(1)))"
    yield bgr, _SwappedChannels(network), swapped
    for mean, std in _NORMALIZATIONS:
        if not np.allclose((mean, std), (spec.mean, spec.std), atol=1e-2):
            numbers = (" ".join(f"{value:.3g}" for value in values) for values in (mean, std))
            words = "it was trained with --mean {} --std {}".format(*numbers)
            yield words, network, replace(spec, mean=mean, std=std)
