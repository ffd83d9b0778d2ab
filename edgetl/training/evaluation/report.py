"""The report of a run, ``report.html``: one file that needs nothing else."""

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

_MAX_MISTAKES = 24
_MAX_LABEL_ISSUES = 12
_MAX_CONFUSIONS = 12
_OPEN_CLASSES = 20  # rows of the table of classes that are visible without a click
_THUMBNAIL = (320, 240)  # pixels, at most; twice what is shown, for screens of double density
_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of confidence
_PRECISE_FROM = 1000  # photos from which a hundredth of a percent means something


@dataclass(frozen=True)
class ReportData:
    """All that a report shows.

    card           of the kept weights; gives labels, backbone, spec, temperature, data, versions
                   and ``metrics_summary``
    classes        ``class_metrics`` of the same photos
    probabilities  float32 [N, C] of the validation photos, at the card's temperature
    untempered     float32 [N, C], at temperature 1; None where that is the card's
    targets        int64 [N], their true classes
    paths          [N], their files
    seconds        wall time of the run
    device         what it ran on, in words
    validated_on   where the validation photos come from, in words
    train_counts   number of training photos of each class; () if that is not known
    settings       name → value, as JSON values
    history        one row an epoch, name → value, such as epoch, train_loss, val_loss,
                   val_accuracy, lr; names with the same ending share a plot; () without epochs
    head_trials    (C, cross-validated log loss in nats) of the heads that were tried; () if none
    label_issues   (training photo, predicted class, confidence 0..1): photos for which heads that
                   were fitted without them predict another class, the most confident first
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
    head_trials: Sequence[tuple[float, float]] = ()
    label_issues: Sequence[tuple[Sample, int, float]] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class ReportPhoto:
    """A photo with its label and another prediction.

    image  a data URI, or None if the photo can't be read any more
    """

    file: str
    label: str
    predicted: str
    confidence: float
    image: str | None


def write_report(run_folder: Path, data: ReportData) -> Path:
    """Write ``report.html`` into ``run_folder``; returns its path.

    Raises CheckpointError if it can't be written, TrainingError for values that are no
    probabilities.
    """
    page = _render(real_path(run_folder).name, data)
    write_atomically(
        run_folder / REPORT,
        lambda file: file.write_text(page, encoding="utf-8", errors="backslashreplace"),
    )
    return run_folder / REPORT


def _render(name: str, data: ReportData) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Labels and file names may hold anything: all is escaped but the plots that are drawn here.
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
        count=lambda number: f"{number:,}",
        duration=_duration,
        setting=_setting,
    )
    matrix = metrics.confusion_matrix(data.probabilities, data.targets)
    labels = data.card.labels
    drawings = [draw(matrix, labels), draw(matrix, labels, narrow=True)]
    return environment.get_template("report.html.jinja").render(
        name=name,
        data=data,
        card=data.card,
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        kept=kept_weights(data.card.metrics) if data.history else "",
        classes=_worst_first(data),
        open_classes=_OPEN_CLASSES,
        mistakes=_mistakes(data),
        label_issues=[
            _photo(labels, photo.path, photo.label, predicted, confidence)
            for photo, predicted, confidence in data.label_issues[:_MAX_LABEL_ISSUES]
        ],
        wrong=int(matrix.sum() - np.trace(matrix)),
        matrix=drawings[0],
        matrices=drawings if drawings[1].fits_narrow_screen else drawings[:1],
        confusions=_confusions(matrix, labels),
        calibration=_calibration(data),
        chance=metrics.chance_calibration_error(data.probabilities),
        thresholds=[
            (threshold, *metrics.selective_accuracy(data.probabilities, data.targets, threshold))
            for threshold in _THRESHOLDS
        ],
        curves=[*_history_curves(data), *_head_curve(data)],
    )


def kept_weights(metrics: Mapping[str, Any]) -> str:
    """Which weights of a run of several epochs were kept, in words."""
    epoch = metrics.get("epoch")
    if not epoch:
        return "those that training started with"
    return f"half-way to epoch {epoch}" if metrics.get("midway") else f"of epoch {epoch}"


def _worst_first(data: ReportData) -> list[tuple[metrics.ClassMetrics, int | None]]:
    """(class, number of training photos), the lowest F1 first, those without one last."""
    counts: Sequence[int | None] = data.train_counts or [None] * len(data.classes)
    return sorted(
        zip(data.classes, counts, strict=True),
        key=lambda pair: 2 if pair[0].f1 is None else pair[0].f1,
    )


def _mistakes(data: ReportData) -> list[ReportPhoto]:
    predicted, confidence = data.probabilities.argmax(1), data.probabilities.max(1)
    wrong = np.flatnonzero(predicted != data.targets)
    first = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MAX_MISTAKES]
    return [
        _photo(
            data.card.labels,
            data.paths[index],
            data.targets[index],
            predicted[index],
            confidence[index],
        )
        for index in first.tolist()
    ]


def _photo(
    labels: Sequence[str], path: Path, label: int, predicted: int, confidence: float
) -> ReportPhoto:
    file = "/".join(path.parts[-2:])
    image = thumbnail(path, *_THUMBNAIL)
    return ReportPhoto(file, labels[label], labels[predicted], float(confidence), image)


def _confusions(
    matrix: NDArray[np.int64], labels: Sequence[str]
) -> list[tuple[str, str, int, int]]:
    """(true class, predicted class, photos, photos of the true class), the most frequent first."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        (labels[true], labels[predicted], int(wrong[true, predicted]), int(matrix[true].sum()))
        for true, predicted in pairs
        if wrong[true, predicted]
    ]


def _calibration(data: ReportData) -> Any:
    probabilities = {f"calibrated (temperature {data.card.temperature:.2f})": data.probabilities}
    if data.untempered is not None:
        probabilities = {"uncalibrated (temperature 1)": data.untempered, **probabilities}
    curves = {
        legend: metrics.calibration_curve(values, data.targets)
        for legend, values in probabilities.items()
    }
    return _safe(plots.calibration_plot("calibration", curves))


def _history_curves(data: ReportData) -> list[tuple[str, Any]]:
    """(heading, drawing) of what changed from epoch to epoch."""
    # Interpolated weights are of no epoch.
    kept = None if data.card.metrics.get("midway") else data.card.metrics.get("epoch")
    curves = []
    for ending, heading in (("loss", "Loss"), ("accuracy", "Accuracy"), ("lr", "Learning rate")):
        series = _series(data.history, ending)
        if series:
            drawing = plots.line_plot(
                ending,
                series,
                x="epoch",
                y=heading.lower(),
                percent=ending == "accuracy",
                chosen=None if ending == "lr" else kept,
            )
            curves.append((heading, _safe(drawing)))
    return curves


def _series(history: Sequence[Mapping[str, float]], ending: str) -> dict[str, plots.Points]:
    """The columns of ``history`` whose names end so: legend → (epochs, values).

    Missing values are left out.
    """
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
        legend = name.removesuffix(f"_{ending}").replace("_", " ")
        series[legend] = ([x for x, _ in points], [y for _, y in points])
    return series


def _head_curve(data: ReportData) -> list[tuple[str, Any]]:
    """(heading, drawing) of the cross-validation of the head, if there was one."""
    if not data.head_trials:
        return []
    trials = sorted(data.head_trials)
    best = min(trials, key=lambda trial: trial[1])[0]
    drawing = plots.line_plot(
        "head",
        {"loss": ([C for C, _ in trials], [loss for _, loss in trials])},
        x="C, inverse strength of the regularisation",
        y="cross-validated log loss",
        log_x=True,
        marker="o",
        chosen=best,
    )
    return [
        (f"Regularisation of the linear head: C = {best:.3g} has the least loss", _safe(drawing))
    ]


def _safe(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _setting(value: object) -> str:
    """A setting, as a person writes it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value))
    return str(value)
