"""``edgetl.drift``: do today's photos look like those that a model was trained on?"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetl.errors import DataError, NoSuchModelError
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.drift.comparison import compare
from edgetl.runtime.drift.drift_result import DriftResult
from edgetl.runtime.drift.permutation_test import LEAST_LEVEL
from edgetl.runtime.drift.photo_answers import is_answers_file, of_predictions, read_answers
from edgetl.runtime.drift.unknown_share import unknown_share
from edgetl.runtime.images.photo_list import refuse_list_options
from edgetl.runtime.images.photo_places import no_photo_in, photos_in
from edgetl.runtime.images.stored_path import as_place
from edgetl.runtime.inference.predictor import Predictor
from edgetl.system.environment import describe_machine
from edgetl.system.progress import Progress, progress_callback, track

_FEWEST_HELD_OUT = 2  # photos, which have a distance


def drift(
    model: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    level: float = 0.05,
    columns: str | Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
    **options: Any,
) -> DriftResult:
    """Compare photos with held-out ones of the training, and estimate the accuracy on them.

    Needs no labels and no torch. The same photos give the same result.

    >>> result = edgetl.drift("exported/pets", "photos/today")
    >>> result.drifted, result.comparison.accuracy.value
    (False, 0.962)

    model     a bundle folder
    images    a folder, a list or a single photo; or a .parquet or .jsonl file of answers that
              ``edgetl predict --embeddings --out`` collected, or its folder of parts
    level     the share of false alarms, at least 0.003, below 1
    columns   of a list: "path=…", where its column has another name
    root      of a list: the folder that its paths are relative to; None: its own
    progress  called with the step, how many photos are done, and of how many; True shows a bar
    options   ``providers``, ``threads``, ``precision`` and ``max_pixels``, as for ``Predictor``

    Raises DataError if there is nothing to compare, or for answers of another model; BundleError,
    RuntimeUnavailableError and MissingDependencyError as ``Predictor`` does; ValueError for another
    level.
    """
    if not LEAST_LEVEL <= level < 1:
        raise ValueError(f"level is {level}; it must be at least {LEAST_LEVEL} and below 1")
    started, place = time.perf_counter(), as_place(images)
    bundle = Bundle.open(Path(model))
    known, limits = bundle.held_out(), bundle.card.unknown
    if known is None or limits is None or len(known.embedding) < _FEWEST_HELD_OUT:
        raise _nothing_to_compare_with(bundle.path, known)
    if is_answers_file(place):
        refuse_list_options(place, columns, root)
        answers = read_answers(place, bundle.card.labels, _model_ids(bundle))
    else:
        photos = [photo.path for photo in photos_in(place, columns=columns, root=root)]
        if not photos:
            raise no_photo_in(images)
        predictor, callback = Predictor(model, **options), progress_callback(progress)
        results = track(predictor.batch(photos), len(photos), "Classifying photos", callback)
        answers = of_predictions(results, list(map(str, photos)))
    if answers.embedding.shape[1] != known.embedding.shape[1]:
        raise DataError(f"{images}: its embeddings are not of this model.", "Classify them again.")
    return DriftResult(
        model=os.fspath(model),
        images=os.fspath(images),
        level=level,
        labels=bundle.card.labels,
        answers=answers,
        known=known,
        comparison=compare(known, answers, bundle.card.temperature),
        unknown=unknown_share(answers.is_unknown, limits.keep_known),
        seconds=time.perf_counter() - started,
        machine=describe_machine(),
    )


def _nothing_to_compare_with(path: Path, known: HeldOut | None) -> NoSuchModelError:
    if known is None or not len(known.labels):
        return NoSuchModelError(
            path,
            "it holds no answers for held-out photos, which today's are compared with",
            "Export it without --no-unknown. If its run holds none either, train again; on more "
            "photos, if there were few, or if they were copies of each other.",
        )
    return NoSuchModelError(
        path,
        "it has no embeddings, by which photos are compared",
        "The report of its run says why it can't tell unknown photos. Mend that, and train again.",
    )


def _model_ids(bundle: Bundle) -> set[str]:
    """``Predictor.model_id`` of each of the bundle's models."""
    names = bundle.manifest["models"].values()
    return {bundle.manifest["files"][name]["sha256"][:16] for name in names}
