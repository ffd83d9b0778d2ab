"""The photos of an export: golden ones, those to calibrate with, and those to judge precisions."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgetl.data.photo_digests import short_digest, unpack
from edgetl.data.photo_source import PhotoSource
from edgetl.errors import ExportError
from edgetl.exporting.photo_selection import (
    OTHER_GOLDEN,
    calibration_photos,
    golden_photos,
    run_data,
    why_unreadable,
)
from edgetl.runtime.images.photo_list import Columns, StrPath, refuse_list_options

if TYPE_CHECKING:
    from edgetl.data.image_folder import ImageFolders, Sample
    from edgetl.exporting.precision.reduced_precision import PrecisionSettings
    from edgetl.runtime.bundle.model_card import ModelCard
    from edgetl.training.models.checkpoint import Trained

_FP32_ALONE = (
    "Put the data back where it was, name photos with --judge-images and --calibration-images, or "
    "export with --precision fp32 alone."
)
_Place = StrPath | None


class OwnPhotos(NamedTuple):
    """Photos that a user named in place of the run's; None where the run's are to be taken."""

    golden: PhotoSource | None
    calibration: PhotoSource | None
    judge: PhotoSource | None

    @classmethod
    def at(
        cls, golden: _Place, calibration: _Place, judge: _Place, columns: Columns, root: _Place
    ) -> OwnPhotos:
        """Those in folders or lists. ``columns`` and ``root`` are for the lists."""

        def source(place: _Place) -> PhotoSource | None:
            if place is None:
                return None
            found = PhotoSource.at(place)
            return PhotoSource.at(place, columns, root) if found.is_list else found

        own = cls(source(golden), source(calibration), source(judge))
        if not any(found and found.is_list for found in own):
            refuse_list_options(None, columns, root)
        return own


def choose_photos(
    trained: Trained,
    own: OwnPhotos,
    golden: int,
    reduced: Set[str],
    calibration: int,
    max_accuracy_drop: float,
    warnings: list[str],
) -> tuple[list[Path], PrecisionSettings | None]:
    """(the golden photos, what reduced precisions need), from the run's data where needed.

    own       the photos that were named
    golden    how many of the run's photos are golden ones
    reduced   the precisions but fp32
    warnings  gets a sentence about each photo that is left out or missing
    """
    from edgetl.exporting.precision.reduced_precision import PrecisionSettings

    settings, card, data = trained.settings, trained.card, None
    if golden:
        data = run_data(settings, card, "golden photos", OTHER_GOLDEN)
    elif ("int8" in reduced and own.calibration is None) or (reduced and own.judge is None):
        data = run_data(settings, card, "reduced precisions", _FP32_ALONE)
    if own.golden is not None:
        golden_files, left_out = _golden_photos(own.golden)
        warnings += left_out
    else:
        golden_files = golden_photos(data, golden) if data else []
    if not reduced:
        return golden_files, None
    own_or_run = own.calibration.photos() if own.calibration else data.train if data else ()
    judged, known = _judge_photos(own.judge, data, card, warnings), unpack(trained.photos)
    return golden_files, PrecisionSettings(
        calibration=calibration_photos([photo.path for photo in own_or_run], calibration),
        validation=[(sample.path, sample.label) for sample in judged],
        max_accuracy_drop=max_accuracy_drop,
        trained_on=sum(short_digest(sample.digest) in known for sample in judged),
    )


def _golden_photos(source: PhotoSource) -> tuple[list[Path], list[str]]:
    """The photos of a folder or list that can be read, and a warning for each other one."""
    found = {photo.path: why_unreadable(photo.path) for photo in source.photos()}
    photos = [path for path, reason in found.items() if reason is None]
    warnings = [f"{path} is left out: {reason}." for path, reason in found.items() if reason]
    if not photos:
        problem = "can be read:" if found else "was found."
        raise ExportError(
            "\n".join([f"No photo in {source.path} {problem}", *warnings]), OTHER_GOLDEN
        )
    return photos, warnings


def _judge_photos(
    source: PhotoSource | None, data: ImageFolders | None, card: ModelCard, warnings: list[str]
) -> Sequence[Sample]:
    if source is not None:
        from edgetl.evaluation.true_labels import labelled_samples

        samples = labelled_samples(source.path, card.labels, source.columns, source.root)
    else:
        assert data is not None
        samples = data.val
        expected = card.data.get("val", len(samples))
        if len(samples) != expected:
            warnings.append(
                f"{data.root} has {len(samples):,} validation photos; the run had {expected:,}."
            )
    return samples
