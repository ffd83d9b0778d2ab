"""``edgetl.evaluate``: how good is an exported model on photos that it has not seen?"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.data.photo_digests import trained_on
from edgetl.errors import DataError, EdgetlError
from edgetl.evaluation.evaluation_result import EvaluationResult
from edgetl.evaluation.metrics import class_metrics, metrics_summary
from edgetl.evaluation.true_labels import find_labelled_photos
from edgetl.runtime.images.decode import MAX_PIXELS
from edgetl.runtime.inference.prediction import Prediction
from edgetl.runtime.inference.predictor import Predictor
from edgetl.runtime.inference.session import Providers
from edgetl.system.environment import describe_machine
from edgetl.system.paths import name_below
from edgetl.system.progress import Progress, progress_callback, track


def evaluate(
    model: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    columns: str | Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    providers: Providers = "auto",
    threads: int | None = None,
    precision: str | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | bool | None = None,
) -> EvaluationResult:
    """Classify labelled photos with an exported model, and compare with their labels.

    The photos go through the shipped predictor, from file to probability; torch is not needed.

    >>> result = edgetl.evaluate("exported/pets", "photos/test")
    >>> result.metrics["accuracy"], result.mistakes[0].file
    (0.985, 'cat/31.jpg')

    model       a bundle folder, or a lone model.onnx
    images      a folder of class folders: a photo's true label is the outermost folder around it
                that is named like a label of the model; or a list with columns path and label, of
                which the photos marked as test are taken where some are
    columns     of a list: "path=…,label=…", where its columns have other names
    root        of a list: the folder that its paths are relative to; None: its own
    providers, threads, precision, max_pixels
                as for ``Predictor``
    progress    called with the step, how many photos are done, and of how many; True shows a bar

    Photos that can't be read, and those without a label of the model, don't count; the result names
    them. So it does with photos that the model was trained on, if the bundle lists them.
    Raises DataError if no photo is left; BundleError, RuntimeUnavailableError and
    MissingDependencyError as ``Predictor`` does.
    """
    started = time.perf_counter()
    predictor = Predictor(
        model, providers=providers, threads=threads, precision=precision, max_pixels=max_pixels
    )
    found = find_labelled_photos(images, predictor.labels, columns=columns, root=root)
    photos = {name_below(path, found.root): path for path, _ in found.photos}
    truths = dict(zip(photos, (truth for _, truth in found.photos), strict=True))
    predictions, failed = _classify(predictor, photos, progress_callback(progress))
    index = {label: number for number, label in enumerate(predictor.labels)}
    targets = np.array([index[truths[name]] for name in predictions], np.int64)
    probabilities = np.stack([answer.probabilities for answer in predictions.values()])
    scores = [answer.ood_score for answer in predictions.values()]
    metrics = metrics_summary(probabilities, targets)
    del metrics["calibration_error_before"]  # at temperature 1, which is not the model's
    default = predictor.bundle.precisions[0] if predictor.bundle else ""
    return EvaluationResult(
        model=os.fspath(model),
        precision=precision or default,
        card=predictor.card,
        images=os.fspath(images),
        root=found.root,
        files=tuple(predictions),
        paths=tuple(photos[name] for name in predictions),
        targets=targets,
        probabilities=probabilities,
        ood_scores=None if None in scores else np.array(scores, np.float32),
        metrics=metrics,
        classes=tuple(class_metrics(probabilities, targets, predictor.labels)),
        failed=failed,
        unlabelled=found.unlabelled,
        trained_on=trained_on(predictor.bundle, {name: photos[name] for name in predictions}),
        seconds=time.perf_counter() - started,
        machine=describe_machine(),
        evidence=None if predictor.card.biases is None else partial(_evidence, predictor),
    )


def _evidence(
    predictor: Predictor, photos: Sequence[tuple[Path, str]]
) -> list[NDArray[np.float32] | None]:
    found: list[NDArray[np.float32] | None] = []
    for photo, label in photos:
        try:
            found.append(predictor.explain(photo).evidence_for(label))
        except EdgetlError:  # the page can do without it
            found.append(None)
    return found


def _classify(
    predictor: Predictor, photos: Mapping[str, Path], progress: Progress
) -> tuple[dict[str, Prediction], dict[str, str]]:
    """(name → prediction, name → why there is none) of ``photos``, name → file.

    Raises DataError if there is no prediction at all.
    """
    predictions, failed = {}, {}
    answers = track(predictor.batch(photos.values()), len(photos), "Classifying photos", progress)
    for name, answer in zip(photos, answers, strict=True):
        if isinstance(answer, Prediction):
            predictions[name] = answer
        else:
            failed[name] = answer.reason
    if not predictions:
        name, reason = next(iter(failed.items()))
        raise DataError(f"None of {len(photos):,} photos can be classified; {name}: {reason}.")
    return predictions, failed
