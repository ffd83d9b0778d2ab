"""The HTML page that reports share, and its sections about answers for labelled photos."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.evaluation import metrics, plots
from edgetl.evaluation.confusion_drawing import draw
from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.metrics import ClassMetrics
from edgetl.evaluation.sure_threshold import TARGETS, find_threshold
from edgetl.runtime.images.heat_map import overlay
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.images.thumbnail import data_uri, read_small, thumbnail
from edgetl.system.machine import cores
from edgetl.system.missing_package import require_packages

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_MAX_MISTAKES = 24
_MAX_CONFUSIONS = 12
_OPEN_CLASSES = 20  # rows of the table of classes that are visible without a click
_THUMBNAIL = (320, 240)  # pixels, at most; twice what is shown, for screens of double density
_PERCENT_SIGN = re.compile(r"(?<=\d)%(?=[\s,;:)]|\.?$|\.\s)")  # not that of "50%.jpg"
_PRECISE_FROM = 1000  # photos from which a hundredth of a percent means something


@dataclass(frozen=True)
class EvidenceMaps:
    """What in a photo speaks for a class.

    of    (photo, label) of several → float32 [y, x] of each, or None where there is none
    spec  which part of the photo that is
    """

    of: Callable[[Sequence[tuple[Path, str]]], Sequence[NDArray[np.float32] | None]]
    spec: PreprocessSpec


@dataclass(frozen=True)
class Answers:
    """A classifier's answers for labelled photos.

    labels         class names, in the order of the outputs
    metrics        ``metrics_summary``
    classes        ``class_metrics``
    probabilities  float32 [N, C]
    targets        int64 [N], the true classes
    paths          [N], the photos' files
    evidence       maps to show beside mistakes; None without
    """

    labels: Sequence[str]
    metrics: Mapping[str, Any]
    classes: Sequence[ClassMetrics]
    probabilities: NDArray[np.float32]
    targets: NDArray[np.int64]
    paths: Sequence[Path]
    evidence: EvidenceMaps | None = None


@dataclass(frozen=True)
class ReportPhoto:
    """A photo with its label and another prediction.

    image     a data URI, or None if the photo can't be read any more
    evidence  a data URI of the photo with the evidence for the prediction, or None
    """

    file: str
    label: str
    predicted: str
    confidence: float
    image: str | None
    evidence: str | None = None


def require_report_packages() -> None:
    """Raises MissingDependencyError without the packages that reports are made with."""
    require_packages("The HTML report", "report", "jinja2", "matplotlib")


def render(template: Path, *, photos: int, **variables: Any) -> str:
    """A page as text.

    template   a file that extends ``page.html.jinja`` or ``answers.html.jinja``
    photos     how many the figures were measured on, which decides their digits
    variables  of the template

    Raises MissingDependencyError without jinja2 or matplotlib.
    """
    require_report_packages()
    environment = _environment(template.parent, 2 if photos >= _PRECISE_FROM else 1)
    created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return environment.get_template(template.name).render(created=created, **variables)


@cache  # compiling the templates takes longer than filling them in
def _environment(folder: Path, digits: int) -> Environment:
    """For the templates of ``folder``; shares in percent have ``digits`` digits after the point."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Labels and file names may hold anything: all is escaped but the plots that are drawn here.
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=lambda share: f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%",
        count=lambda number: f"{number:,}",
        duration=_duration,
        setting=_setting,
        # As the filter before writes it; the terminal has no space.
        spaced=lambda words: _PERCENT_SIGN.sub("\N{NO-BREAK SPACE}%", words),
    )
    return environment


def answer_sections(
    answers: Answers,
    *,
    kind: str,
    seconds: float,
    warnings: Sequence[str] = (),
    all_mistakes: str = "",
    train_counts: Sequence[int] = (),
    temperature: float = 1.0,
    untempered: NDArray[np.float32] | None = None,
    held_out: LabelledAnswers | None = None,
) -> dict[str, Any]:
    """The variables of ``answers.html.jinja``.

    kind          of the photos: "validation", "test"
    seconds       wall time
    all_mistakes  the file that lists every mistake; "" for none
    train_counts  number of training photos of each class; () if that is not known
    temperature   of ``answers``, shown beside ``untempered``
    untempered    float32 [N, C], at temperature 1; None where that is not shown
    held_out      more answers than ``answers``, to tell which are sure; None: ``answers``

    Raises TrainingError for values that are no probabilities.
    """
    matrix = metrics.confusion_matrix(answers.probabilities, answers.targets)
    labels = answers.labels
    judged = held_out or LabelledAnswers(labels, answers.probabilities, answers.targets)
    drawings = [draw(matrix, labels), draw(matrix, labels, narrow=True)]
    probabilities = {"": answers.probabilities}
    if untempered is not None:
        probabilities = {
            "uncalibrated (temperature 1)": untempered,
            f"calibrated (temperature {temperature:.2f})": answers.probabilities,
        }
    return {
        "kind": kind,
        "labels": labels,
        "metrics": answers.metrics,
        "seconds": seconds,
        "warnings": warnings,
        "all_mistakes": all_mistakes,
        "train_counts": train_counts,
        "classes": _worst_first(answers.classes, train_counts),
        "open_classes": _OPEN_CLASSES,
        "mistakes": _mistakes(answers),
        "wrong": int(matrix.sum() - np.trace(matrix)),
        "matrix": drawings[0],
        "matrices": drawings if drawings[1].fits_narrow_screen else drawings[:1],
        "confusions": _confusions(matrix, labels),
        "scaled": untempered is not None,
        "temperature": temperature,
        "calibration": _calibration(probabilities, answers.targets),
        "curve_from": metrics.MIN_CALIBRATION_PHOTOS,
        "chance": metrics.chance_calibration_error(answers.probabilities),
        "thresholds": [find_threshold(judged, precision) for precision in TARGETS],
    }


def report_photos(
    photos: Sequence[tuple[Path, str, str, float]], maps: EvidenceMaps | None = None
) -> list[ReportPhoto]:
    """Photos (file, label, predicted label, confidence) with thumbnails, and ``maps`` on them."""

    def show(
        photo: tuple[Path, str, str, float], evidence: NDArray[np.float32] | None
    ) -> ReportPhoto:
        path, label, predicted, confidence = photo
        images: list[str | None] = [None, None]
        if (small := read_small(path, *_THUMBNAIL)) is not None:
            images[0] = data_uri(small)
            if maps is not None and evidence is not None:
                images[1] = data_uri(overlay(small, evidence, maps.spec))
        return ReportPhoto(short_name(path), label, predicted, float(confidence), *images)

    evidence: Sequence[NDArray[np.float32] | None] = [None] * len(photos)
    if maps is not None:
        evidence = maps.of([(path, predicted) for path, _, predicted, _ in photos])
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(show, photos, evidence))


def short_name(path: Path) -> str:
    """A photo's name and that of its folder."""
    return "/".join(path.parts[-2:])


def page_thumbnail(path: Path) -> str | None:
    """A data URI of the photo, as large as pages show it; None if it can't be read any more."""
    return thumbnail(path, *_THUMBNAIL)


def drawn(svg: str) -> Markup:
    """A drawing that is put into the page as it is."""
    from markupsafe import Markup

    return Markup(svg)


def _worst_first(
    classes: Sequence[ClassMetrics], train_counts: Sequence[int]
) -> list[tuple[ClassMetrics, int | None]]:
    """(class, number of training photos), the lowest F1 first, those without one last."""
    counts: Sequence[int | None] = train_counts or [None] * len(classes)
    return sorted(
        zip(classes, counts, strict=True), key=lambda pair: 2 if pair[0].f1 is None else pair[0].f1
    )


def _mistakes(answers: Answers) -> list[ReportPhoto]:
    predicted, confidence = answers.probabilities.argmax(1), answers.probabilities.max(1)
    wrong = np.flatnonzero(predicted != answers.targets)
    first = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MAX_MISTAKES]
    return report_photos(
        [
            (
                answers.paths[index],
                answers.labels[answers.targets[index]],
                answers.labels[predicted[index]],
                confidence[index],
            )
            for index in first.tolist()
        ],
        answers.evidence,
    )


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


def _calibration(
    probabilities: Mapping[str, NDArray[np.float32]], targets: NDArray[np.int64]
) -> Markup | None:
    """The reliability diagram of each (legend → probabilities); None for too few photos."""
    curves = {
        legend: metrics.calibration_curve(values, targets)
        for legend, values in probabilities.items()
    }
    if not all(curves.values()):
        return None
    return drawn(plots.calibration_plot("calibration", curves))


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
