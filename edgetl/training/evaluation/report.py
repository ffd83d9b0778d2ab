"""The report of a run, ``report.html``: one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.data.image_folder import Sample
from edgetl.evaluation import plots
from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.metrics import ClassMetrics
from edgetl.evaluation.report_page import (
    Answers,
    EvidenceMaps,
    ReportPhoto,
    answer_sections,
    drawn,
    render,
    report_photos,
)
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.paths import real_path
from edgetl.training.config.model_trial import ModelTrial
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import REPORT, VALIDATION_TABLE
from edgetl.training.evaluation.run_comparison import RunComparison
from edgetl.training.evaluation.unknown_report import UnknownReport
from edgetl.training.head.cross_validation import CVResult

if TYPE_CHECKING:
    from edgetl.training.engine.train_result import TrainResult

_MAX_LABEL_ISSUES = 12
_MAX_FLIPPED = 12  # of each kind


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
    cross_validation  of the head, where that is the result; None if there was none
    trials         the networks that this one was chosen from; () without a budget
    label_issues   (training photo, predicted class, probability 0..1 that its label is wrong), the
                   likeliest errors first
    warnings       sentences about the data or the run
    since          what changed since an earlier run; None where none was named
    held_out       the answers that tell which ones are sure; None: those of ``probabilities``
    evidence       maps to show beside mistakes; None without
    unknown        what is known of the detector of unknown photos; None without one
    """

    card: ModelCard
    classes: Sequence[ClassMetrics]
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
    cross_validation: CVResult | None = None
    trials: Sequence[ModelTrial] = ()
    label_issues: Sequence[tuple[Sample, int, float]] = ()
    warnings: Sequence[str] = ()
    since: RunComparison | None = None
    held_out: LabelledAnswers | None = None
    evidence: EvidenceMaps | None = None
    unknown: UnknownReport | None = None


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


def saved_report(result: TrainResult) -> str | None:
    """The page that a finished run wrote, or None if it is gone."""
    page = result.folder / REPORT
    return page.read_text(encoding="utf-8") if result.finished and page.is_file() else None


def _render(name: str, data: ReportData) -> str:
    card = data.card
    return render(
        Path(__file__).with_name("report.html.jinja"),
        photos=len(data.targets),
        name=name,
        card=card,
        device=data.device,
        validated_on=data.validated_on,
        settings=data.settings,
        history=data.history,
        kept=kept_weights(card.metrics) if data.history else "",
        label_issues=report_photos(
            [
                (photo.path, card.labels[photo.label], card.labels[predicted], label_error)
                for photo, predicted, label_error in data.label_issues[:_MAX_LABEL_ISSUES]
            ]
        ),
        issues=len(data.label_issues),
        trials=data.trials,
        tradeoff=_tradeoff(data.trials),
        cross_validated=data.cross_validation is not None,
        since=data.since,
        unknown=data.unknown.section(card.labels) if data.unknown else None,
        lost=_flipped(data, is_right=False),
        gained=_flipped(data, is_right=True),
        curves=[*_history_curves(data), *_head_curves(data)],
        **answer_sections(
            Answers(
                card.labels,
                card.metrics,
                data.classes,
                data.probabilities,
                data.targets,
                data.paths,
                data.evidence,
            ),
            kind="validation",
            seconds=data.seconds,
            warnings=data.warnings,
            all_mistakes=VALIDATION_TABLE,
            train_counts=data.train_counts,
            temperature=card.temperature,
            untempered=data.untempered,
            held_out=data.held_out,
        ),
    )


def _tradeoff(trials: Sequence[ModelTrial]) -> Any:
    """A drawing of accuracy against milliseconds, one colour for each backbone; None for one."""
    tried = [trial for trial in trials if trial.photos]
    if len(tried) < 2:
        return None
    series: dict[str, list[plots.Estimate]] = {}
    for trial in tried:
        point = plots.Estimate(trial.total_ms, trial.accuracy, trial.interval)
        series.setdefault(trial.backbone, []).append(point)
    chosen = next(trial.total_ms for trial in trials if trial.is_chosen)
    x, y = "milliseconds for a photo", "accuracy, cross-validated"
    return drawn(plots.estimates_plot("tradeoff", series, x=x, y=y, chosen=chosen))


def _flipped(data: ReportData, *, is_right: bool) -> list[ReportPhoto]:
    """The first of the photos that are right, or wrong, now only, each with its wrong answer."""
    if data.since is None:
        return []
    root = data.since.root
    answers = [answer for answer in data.since.flipped if answer.is_right == is_right]
    shown = answers[:_MAX_FLIPPED]
    return report_photos([(Path(root, one.file), one.label, *one.mistake) for one in shown])


def kept_weights(metrics: Mapping[str, Any]) -> str:
    """Which weights of a run of several epochs were kept, in words."""
    epoch = metrics.get("epoch")
    if not epoch:
        return "those that training started with"
    if metrics.get("midway"):
        return f"the mean of those at the start and those of epoch {epoch}"
    return f"of epoch {epoch}"


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
            curves.append((heading, drawn(drawing)))
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


def _head_curves(data: ReportData) -> list[tuple[str, Any]]:
    """(heading, drawing) of the cross-validation of the head, if there was one."""
    found = data.cross_validation
    if found is None:
        return []
    curves: list[tuple[str, Any]] = []
    for heading, scores, chosen, x in (
        (
            f"The linear head is {found.recipe.describe()}; log loss of logistic regression",
            found.logistic_scores,
            found.recipe.C,
            "C, inverse strength of the regularisation",
        ),
        (
            "Log loss of the linear discriminant",
            found.shrinkage_scores,
            found.recipe.shrinkage,
            "shrinkage of the covariance",
        ),
    ):
        if not scores:  # no discriminant was tried
            continue
        tried = [score.parameter for score in scores]
        drawing = plots.line_plot(
            f"head{len(curves)}",
            {"loss": (tried, [score.loss for score in scores])},
            x=x,
            y="cross-validated log loss",
            log_x=max(tried) > 100 * min(tried),  # on fewer decades, there may be no power of ten
            marker="o",
            chosen=chosen,
        )
        curves.append((heading, drawn(drawing)))
    return curves
