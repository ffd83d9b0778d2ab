"""The end of a run: the temperature, the final figures, the report, all about the weights that are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.training.config.run_folder import BEST
from edgetl.training.config.settings import OPTIONS, TrainSettings
from edgetl.training.evaluation.metrics import class_metrics, metrics_summary
from edgetl.training.evaluation.report import ReportData, write_report
from edgetl.training.evaluation.run_records import PhotoResult, write_metrics, write_photo_tables
from edgetl.training.head.label_issues import LabelIssue
from edgetl.training.head.temperature import fit_temperature
from edgetl.training.models import checkpoint


@dataclass(frozen=True)
class ReportInputs:
    """What the report tells of a run besides its results; the fields are those of ``ReportData``, but photos are rows."""

    seconds: float
    device: str
    warnings: Sequence[str]
    history: Sequence[Mapping[str, Any]] = ()
    strengths: Sequence[tuple[float, float]] = ()
    doubts: Sequence[LabelIssue] = ()


def _effective(settings: TrainSettings, folders: ImageFolders) -> dict[str, Any]:
    """Without those that changed nothing beside the others, or with these photos."""
    idle = {name for name in OPTIONS if not settings.has_effect(name)} | (
        {"val_fraction"} if folders.has_val_folder else set()
    )
    return {name: value for name, value in settings.to_dict().items() if name not in idle}


def finalize(
    folder: Path,
    settings: TrainSettings,
    folders: ImageFolders,
    logits: NDArray[np.float32],
    told: ReportInputs,
) -> dict[str, Any]:
    """Complete the checkpoint in ``folder``, and write report.html, the tables of photos, and metrics.json, there by class,
    too → the metrics.

    settings  as the run ends: the photos may have moved since its weights were kept
    logits    float32 [N, classes], what the kept weights say of the validation photos

    The metrics come last: where they are, the run is complete. Doing it twice, after an interruption, is doing it once.
    Raises CheckpointError if something can't be written.
    """
    best = checkpoint.load(folder)
    labels = np.array([sample.label for sample in folders.val], np.int64)
    temperature = fit_temperature(logits, labels)
    untempered, probabilities = (
        softmax(logits.astype(np.float64) / divisor, axis=1).astype(np.float32)
        for divisor in (1.0, temperature)
    )
    metrics = metrics_summary(probabilities, labels, untempered=untempered)
    metrics |= {
        "epoch": best.card.metrics["epoch"],
        "midway": best.card.metrics.get("midway", False),
    }
    card = replace(best.card, metrics=metrics, temperature=temperature)
    checkpoint.save(replace(best, card=card, settings=settings.to_dict()), folder / BEST)
    made = "the folder val/"
    if not folders.has_val_folder:
        made = f"{100 * settings.val_fraction:g}% of the photos, by their content"
    classes = class_metrics(probabilities, labels, card.labels)
    report = ReportData(
        card=card,
        classes=classes,
        validated_on=made,
        probabilities=probabilities,
        untempered=untempered if temperature != 1 else None,
        targets=labels,
        paths=[sample.path for sample in folders.val],
        seconds=told.seconds,
        device=told.device,
        train_counts=folders.train_counts,
        settings=_effective(settings, folders),
        history=told.history,
        head_trials=told.strengths,
        label_issues=[
            (folders.train[photo], predicted, sure) for photo, predicted, sure in told.doubts
        ],
        warnings=told.warnings,
    )
    write_report(folder, report)
    write_photo_tables(folder, _answers(folders, probabilities), _doubts(folders, told.doubts))
    write_metrics(
        folder,
        {**metrics, "temperature": temperature, "classes": [asdict(found) for found in classes]},
    )
    return metrics


def _answers(folders: ImageFolders, probabilities: NDArray[np.float32]) -> list[PhotoResult]:
    """Of every validation photo: the surest mistakes first, then what is right, the least sure first."""
    found = [
        _answer(folders, sample, int(answer), float(confidence))
        for sample, answer, confidence in zip(
            folders.val, probabilities.argmax(1), probabilities.max(1), strict=True
        )
    ]
    wrong, right = (
        [row for row in found if (row.answer == row.label) == is_right]
        for is_right in (False, True)
    )
    return sorted(wrong, key=lambda row: -row.confidence) + sorted(
        right, key=lambda row: row.confidence
    )


def _doubts(folders: ImageFolders, doubts: Sequence[LabelIssue]) -> list[PhotoResult]:
    return [
        _answer(folders, folders.train[doubt.photo], doubt.predicted, doubt.confidence)
        for doubt in doubts
    ]


def _answer(folders: ImageFolders, sample: Sample, answer: int, confidence: float) -> PhotoResult:
    name = sample.path.relative_to(folders.root).as_posix()
    return PhotoResult(name, folders.classes[sample.label], folders.classes[answer], confidence)
