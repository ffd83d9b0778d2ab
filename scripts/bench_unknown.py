"""How well photos of other kinds are noticed, beside simpler scores, as a Markdown table.

    python scripts/bench_unknown.py DATA DATA [DATA …] [--splits 3] [--most 100] [--groups 5]

Each DATA holds photos by class, split into train/ and val/ or not. In each split, a third of its
photos are test photos; a head and a detector are fitted to the others, as in training.

far    the test photos of all other sets are unknown
near   a group of classes is left out, head and detector are fitted without them, and their test
       photos are unknown, in turn for each group; only of sets with three classes or more
kept   the share of known test photos at or below the threshold

Each is measured with three more scores: the largest probability (msp: Hendrycks and Gimpel, 2017),
the energy of the logits (Liu et al., 2020), and the distance alone. far and near are the AUROC and
the share of unknown photos let in at the threshold that keeps 95 % of held-out photos, in percent.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from edgetl.data.image_folder import scan
from edgetl.evaluation.conformal import conformal_limit
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN
from edgetl.training.evaluation.separation import separate
from edgetl.training.head.detector_fit import PhotoFeatures, fit_detector
from edgetl.training.head.features import extract_features
from edgetl.training.head.held_out_answers import HeldOutAnswers
from edgetl.training.head.linear_head import fit_head
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build
from edgetl.training.models.ood_detector import entropy

SCORES = ("edgetl", "msp", "energy", "distance")
TEST_SHARE = 1 / 3
Scores = Mapping[str, np.ndarray]


class FittedSet:
    """A head and a detector for some photos.

    held_out  the scores of these photos, by heads and banks without them
    """

    def __init__(self, photos: PhotoFeatures) -> None:
        names, labels = np.unique(photos.labels, return_inverse=True)
        photos = PhotoFeatures(photos.values, labels, photos.digests)
        self._head = fit_head(photos.values, labels, len(names), digests=photos.digests)
        judged = self._head.cross_validation
        assert judged is not None, "too few photos"
        rows = judged.photos
        answers = HeldOutAnswers(
            rows,
            np.empty(0, np.int64),
            labels[rows].astype(np.int32),
            judged.logits.astype(np.float32),
        )
        nothing = PhotoFeatures(photos.values[:0], labels[:0], [])
        fitted = fit_detector(answers, photos, nothing, refit=False)
        self._detector = fitted.detector
        self.held_out = _scores(
            answers.logits, fitted.held_out.ood_score, fitted.class_distances.min(1)
        )

    def scores(self, values: np.ndarray) -> Scores:
        """Of other photos, by their features."""
        logits, detector = self._head.logits(values), self._detector
        both = detector.score(values, logits)
        # The score is a sum, whose other part is that of the mean distance.
        nowhere = np.full(len(values), detector.distance_mean, np.float32)
        undecided = detector.combine(nowhere, entropy(logits))
        distance = (both - undecided) * detector.distance_std + detector.distance_mean
        return _scores(logits, both, distance)


def _scores(logits: np.ndarray, both: np.ndarray, distance: np.ndarray) -> Scores:
    msp, energy = -softmax(logits, axis=1).max(1), -logsumexp(logits, axis=1)
    return dict(zip(SCORES, (both, msp, energy, distance), strict=True))


def photos_of(data: str, backbone: Backbone, most: int, cache: Path) -> PhotoFeatures:
    """The features of at most so many photos of each class."""
    folders, chosen = scan(Path(data)), []
    samples = {sample.digest: sample for sample in folders.train + folders.val}
    counts = np.zeros(len(folders.classes), int)
    for digest in sorted(samples):
        sample = samples[digest]
        counts[sample.label] += 1
        if counts[sample.label] <= most:
            chosen.append(sample)
    found = extract_features(backbone, chosen, cache=cache)
    labels = np.array([sample.label for sample in chosen])
    return PhotoFeatures(found.of(chosen), labels, [sample.digest for sample in chosen])


def some(photos: PhotoFeatures, rows: np.ndarray) -> PhotoFeatures:
    return PhotoFeatures(
        photos.values[rows], photos.labels[rows], [photos.digests[row] for row in rows]
    )


def split(photos: PhotoFeatures, seed: int) -> tuple[PhotoFeatures, PhotoFeatures]:
    """(to fit, to test), the same share of each class in both."""
    is_test = np.zeros(len(photos.labels), bool)
    for label in np.unique(photos.labels):
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(photos.labels == label))
        is_test[rows[: round(len(rows) * TEST_SHARE)]] = True
    return some(photos, np.flatnonzero(~is_test)), some(photos, np.flatnonzero(is_test))


def separations(
    fitted: FittedSet, known: np.ndarray, unknown: np.ndarray
) -> Iterator[tuple[Any, ...]]:
    """(score, AUROC, share let in, share kept) of test photos, by their features."""
    of_known, of_unknown = fitted.scores(known), fitted.scores(unknown)
    for name in SCORES:
        limit = conformal_limit(fitted.held_out[name], KEEP_KNOWN)
        found = separate([(of_known[name], of_unknown[name])])
        assert found is not None, "too few test photos"
        let_in, kept = (np.mean(each[name] <= limit) for each in (of_unknown, of_known))
        yield name, found.auroc, let_in, kept


def bench(sets: Mapping[str, PhotoFeatures], splits: int, groups: int) -> None:
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    for seed in range(splits):
        parts = {name: split(photos, seed) for name, photos in sets.items()}
        for name, (train, test) in parts.items():
            fitted = FittedSet(train)
            others = np.concatenate([part[1].values for key, part in parts.items() if key != name])
            far = list(separations(fitted, test.values, others))
            near = defaultdict(list)
            classes = np.unique(train.labels)
            for group in range(min(groups, len(classes)) if len(classes) > 2 else 0):
                out = classes[group::groups]
                rest = FittedSet(some(train, np.flatnonzero(~np.isin(train.labels, out))))
                is_out = np.isin(test.labels, out)
                of_group = separations(rest, test.values[~is_out], test.values[is_out])
                for score, auroc, let_in, _ in of_group:
                    near[score].append((auroc, let_in))
            for score, auroc, let_in, kept in far:
                by_class = np.mean(near[score], axis=0) if near[score] else (np.nan, np.nan)
                rows[name, score].append((auroc, let_in, *by_class, kept))
    print("| set | score | far | let in | near | let in | kept |\n|---|---|---|---|---|---|---|")
    for (name, score), found in rows.items():
        print(f"| {name} | {score} |", line(np.mean(found, axis=0)), flush=True)
    for score in SCORES:
        every = np.array([found for (_, other), found in rows.items() if other == score])
        means, least = np.nanmean(every, axis=(0, 1)), np.mean(every, axis=1)[:, -1].min()
        print(
            f"| **mean of {len(sets)}** | {score} |", line(means), f"least kept {100 * least:.1f}"
        )


def line(values: np.ndarray) -> str:
    return " | ".join("–" if np.isnan(value) else f"{100 * value:.1f}" for value in values) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="DATA")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--most", type=int, default=100, help="photos of a class")
    parser.add_argument("--groups", type=int, default=5, help="of classes, for near")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/edgetl-bench")
    arguments = parser.parse_args()
    if len(arguments.data) < 2:
        parser.error("far takes two sets or more")
    backbone = build(arguments.backbone, 2)
    sets = {
        Path(data).name: photos_of(data, backbone, arguments.most, arguments.cache)
        for data in arguments.data
    }
    bench(sets, arguments.splits, arguments.groups)


if __name__ == "__main__":
    main()
