"""How often ``edgetl drift`` raises an alarm, and how well it knows the accuracy.

    python scripts/bench_drift.py BUNDLE DATA/test [BUNDLE DATA/test …] [--draws 1000]

For each bundle and its labelled test photos:

alarms     the share of draws with a p-value up to 0.05, of 25, 50, 100 and 200 test photos as they
           are ("clean") and with each corruption of ImageNet-C at severity 3
accuracy   its estimate without labels, with the interval, beside what the labels say
false      the share of alarms where reference and today's photos are both drawn from the held-out
           ones: 5 % of the draws, but for chance

Draws of the same few photos depend on each other: of the clean test photos, the first table says
only whether these photos as a whole are unlike the held-out ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.corruptions import CORRUPTIONS

from edgetl import Predictor
from edgetl.evaluation.true_labels import find_labelled_photos
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.drift.comparison import compare
from edgetl.runtime.drift.photo_answers import PhotoAnswers, of_predictions
from edgetl.runtime.images.decode import read_image

SIZES = (25, 50, 100, 200)
LEVEL = 0.05
MOST = 400  # test photos that are corrupted and classified


def some(answers: PhotoAnswers, index: np.ndarray) -> PhotoAnswers:
    return PhotoAnswers(
        tuple(answers.names[i] for i in index),
        answers.probabilities[index],
        answers.embedding[index],
        answers.ood_score[index],
        answers.is_unknown[index],
        {},
    )


def as_answers(known: HeldOut, temperature: float) -> PhotoAnswers:
    count = len(known.labels)
    return PhotoAnswers(
        tuple(map(str, range(count))),
        known.probabilities(temperature),
        known.embedding.astype(np.float32),
        known.ood_score,
        np.zeros(count, bool),  # which no test looks at
        {},
    )


def corrupted(files: list[Path], name: str) -> Iterator[Image.Image]:
    for number, file in enumerate(files):
        photo = read_image(file)
        rng = np.random.default_rng(number)
        yield CORRUPTIONS[name](photo, rng) if name in CORRUPTIONS else photo


def bench(bundle: str, test: str, draws: int) -> None:
    predictor = Predictor(bundle)
    assert predictor.bundle is not None, bundle
    known, temperature = predictor.bundle.held_out(), predictor.card.temperature
    assert known is not None, f"{bundle} has no held-out answers"
    found = find_labelled_photos(test, predictor.labels).photos
    found = tuple(found[i] for i in np.random.default_rng(0).permutation(len(found))[:MOST])
    files, truths = [path for path, _ in found], np.array([truth for _, truth in found])
    print(f"{bundle}: {len(known.labels)} held-out photos, {len(files)} test photos")
    print(f"{'':15}" + "".join(f"{size:>7}" for size in SIZES) + "   accuracy, estimated, interval")
    for name in ("clean", *CORRUPTIONS):
        answers = of_predictions(predictor.batch(corrupted(files, name)), list(map(str, files)))
        alarms = []
        for size in SIZES:
            rng, size = np.random.default_rng(size), min(size, len(files))
            drawn = [rng.permutation(len(files))[:size] for _ in range(max(1, draws // 50))]
            found_p = [compare(known, some(answers, i), temperature).p_value for i in drawn]
            alarms.append(float(np.mean([p <= LEVEL for p in found_p])))
        estimate = compare(known, answers, temperature).accuracy
        right = np.mean(np.array(predictor.labels)[answers.predicted] == truths)
        low, high = estimate.interval
        print(
            f"{name:15}"
            + "".join(f"{share:>7.0%}" for share in alarms)
            + f"   {right:.1%}, {estimate.value:.1%}, {low:.1%} to {high:.1%}",
            flush=True,
        )
    print(f"false alarms: {false_alarms(known, temperature, draws):.1%} of {draws} draws\n")


def false_alarms(known: HeldOut, temperature: float, draws: int) -> float:
    """Half of the held-out photos, drawn anew each time, against the other half."""
    answers, alarms = as_answers(known, temperature), 0
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(known.labels))
        first, second = np.array_split(order, 2)
        found = compare(known.some(first), some(answers, second), temperature)
        alarms += found.p_value <= LEVEL
    return alarms / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="+", metavar="BUNDLE DATA/test")
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    for bundle, test in zip(arguments.places[::2], arguments.places[1::2], strict=True):
        bench(bundle, test, arguments.draws)


if __name__ == "__main__":
    main()
