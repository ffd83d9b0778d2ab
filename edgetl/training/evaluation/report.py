"""What you got: a run's ``report.html``, one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.data.image_folder import Sample
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.thumbnail import thumbnail
from edgetl.system.paths import real_path
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import REPORT
from edgetl.training.evaluation import metrics, plots
from edgetl.training.evaluation.confusion_drawing import draw

_MOST_MISTAKES = 24
_MOST_DOUBTS = 12
_MOST_CONFUSIONS = 12
_OPEN_CLASSES = 20  # rows of the table of classes that are shown without a click
_THUMBNAIL = (320, 240)  # pixels, at most; twice what is shown, for screens of double density
_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of confidence
_PRECISE_FROM = 1000  # photos from which a hundredth of a percent means something


@dataclass(frozen=True)
class ReportData:
    """All that a report shows.

    card           of the kept weights; gives labels, backbone, spec, temperature, data, versions and ``metrics_summary``
    classes        ``class_metrics`` of the same photos
    probabilities  float32 [N, C] of the validation photos, at the card's temperature
    untempered     the same at temperature 1; None where that is the card's
    targets        int64 [N], what they are
    paths          [N], their files
    seconds        wall time of the run
    device         what it ran on, in words
    validated_on   where the validation photos come from, in words
    train_counts   photos trained on, by class; () if that is not known
    settings       name → value, as JSON values
    history        one row an epoch, number → value, such as epoch, train_loss, val_loss, val_accuracy, lr: what ends
                   alike shares a plot; () where there were no epochs
    strengths      (strength, cross-validated log loss in nats) of the heads that were tried; () if there were none
    doubts         (training photo, class it was taken for, confidence 0..1): by heads that were fitted without it, the
                   surest first
    warnings       sentences about the data or the run
    """

    card: ModelCard
    classes: Sequence[metrics.ClassMetrics]
    probabilities: NDArray[np.float32]
    targets: NDArray[np.int64]
    paths: Sequence[Path]
    seconds: float
    untempered: NDArray[np.float32] | None = None
    device: str = ""
    validated_on: str = ""
    train_counts: Sequence[int] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    strengths: Sequence[tuple[float, float]] = ()
    doubts: Sequence[tuple[Sample, int, float]] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Mistake:
    """A photo that was classified wrongly. ``image``: a data URI, or None if the photo can't be read any more."""

    file: str
    truth: str
    predicted: str
    confidence: float
    image: str | None


def write_report(run_folder: Path, data: ReportData) -> Path:
    """Write ``report.html`` into ``run_folder``; returns its path.

    Raises CheckpointError if the folder can't be written, TrainingError if the probabilities are none.
    """
    page = _render(real_path(run_folder).name, data)
    write_atomically(
        run_folder / REPORT,
        lambda file: file.write_text(page, encoding="utf-8", errors="backslashreplace"),
    )
    return run_folder / REPORT


def _render(name: str, data: ReportData) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Labels and file names hold anything: every value is escaped unless it is drawn here.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digits = 2 if len(data.targets) >= _PRECISE_FROM else 1
    environment.filters.update(
        percent=lambda share: f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%",
        duration=_duration,
        shown=_shown,
    )
    matrix = metrics.confusion_matrix(data.probabilities, data.targets)
    return environment.get_template("report.html.jinja").render(
        name=name,
        data=data,
        card=data.card,
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        kept=kept_weights(data.card.metrics) if data.history else "",
        classes=_worst_first(data),
        open_classes=_OPEN_CLASSES,
        mistakes=_mistakes(data),
        doubts=[
            _mistake(data, photo.path, photo.label, taken, sure)
            for photo, taken, sure in data.doubts[:_MOST_DOUBTS]
        ],
        wrong=int(matrix.sum() - np.trace(matrix)),
        matrix=draw(matrix, data.card.labels),
        confusions=_confusions(matrix, data.card.labels),
        calibration=_calibration(data),
        chance=metrics.honest_calibration_error(data.probabilities),
        thresholds=[
            (least, *metrics.selective_accuracy(data.probabilities, data.targets, least))
            for least in _THRESHOLDS
        ],
        curves=_curves(data),
    )


def kept_weights(metrics: Mapping[str, Any]) -> str:
    """Which weights of a run of several epochs were kept, in words."""
    if not metrics.get("epoch"):
        return "those that training began with"
    return (
        f"half-way to epoch {metrics['epoch']}"
        if metrics.get("midway")
        else f"of epoch {metrics['epoch']}"
    )


def _worst_first(data: ReportData) -> list[tuple[metrics.ClassMetrics, int | None]]:
    """Classes with their numbers of training photos, the lowest F1 first, those without one last."""
    counts: Sequence[int | None] = data.train_counts or [None] * len(data.classes)
    return sorted(
        zip(data.classes, counts, strict=True),
        key=lambda pair: 2 if pair[0].f1 is None else pair[0].f1,
    )


def _mistakes(data: ReportData) -> list[Mistake]:
    predicted, confidence = data.probabilities.argmax(1), data.probabilities.max(1)
    wrong = np.flatnonzero(predicted != data.targets)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MOST_MISTAKES]
    return [
        _mistake(data, data.paths[index], data.targets[index], predicted[index], confidence[index])
        for index in surest.tolist()
    ]


def _mistake(
    data: ReportData, path: Path, label: int, predicted: int, confidence: float
) -> Mistake:
    labels = data.card.labels
    return Mistake(
        "/".join(path.parts[-2:]),
        labels[label],
        labels[predicted],
        float(confidence),
        thumbnail(path, *_THUMBNAIL),
    )


def _confusions(
    matrix: NDArray[np.int64], labels: Sequence[str]
) -> list[tuple[str, str, int, int]]:
    """(what it is, what was predicted, photos, photos of the class), the most frequent first."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        (labels[a], labels[b], int(wrong[a, b]), int(matrix[a].sum()))
        for a, b in pairs
        if wrong[a, b]
    ]


def _calibration(data: ReportData) -> Any:
    probabilities = {f"temperature {data.card.temperature:.2f}": data.probabilities}
    if data.untempered is not None:
        probabilities = {"before (temperature 1)": data.untempered, **probabilities}
    curves = {
        legend: metrics.calibration_curve(values, data.targets)
        for legend, values in probabilities.items()
    }
    return _drawn(plots.calibration_plot("calibration", curves))


def _curves(data: ReportData) -> list[tuple[str, Any]]:
    """(heading, drawing) of what changed over the epochs, and over the strengths of the head."""
    curves = []
    kept = (
        None if data.card.metrics.get("midway") else data.card.metrics.get("epoch")
    )  # half-way weights are of none
    for ending, heading in (("loss", "Loss"), ("accuracy", "Accuracy"), ("lr", "Learning rate")):
        series = _series(data.history, ending)
        if series:
            options: dict[str, Any] = {
                "percent": ending == "accuracy",
                "chosen": None if ending == "lr" else kept,
            }
            curves.append(
                (heading, plots.line_plot(ending, series, x="epoch", y=heading.lower(), **options))
            )
    if data.strengths:
        tried = sorted(data.strengths)
        least = min(tried, key=lambda trial: trial[1])[0]
        points = ([strength for strength, _ in tried], [loss for _, loss in tried])
        drawing = plots.line_plot(
            "strengths",
            {"loss": points},
            x="strength",
            y="log loss",
            log_x=True,
            marker="o",
            chosen=least,
        )
        curves.append(
            (f"Strength of the head: {least:.3g}, of the least loss in cross-validation", drawing)
        )
    return [(heading, _drawn(drawing)) for heading, drawing in curves]


def _series(history: Sequence[Mapping[str, float]], ending: str) -> dict[str, plots.Points]:
    """The columns of ``history`` whose names end so: legend → (epochs, values); missing values are left out."""
    names = [
        name
        for name in dict.fromkeys(name for row in history for name in row)
        if name.split("_")[-1] == ending
    ]
    series: dict[str, plots.Points] = {}
    for name in names:
        points = [
            (row.get("epoch", number), row[name])
            for number, row in enumerate(history, 1)
            if row.get(name) is not None
        ]
        series[name.removesuffix(f"_{ending}").replace("_", " ")] = (
            [x for x, _ in points],
            [y for _, y in points],
        )
    return series


def _drawn(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _shown(value: object) -> str:
    """A setting, as a person writes it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return str(value)
