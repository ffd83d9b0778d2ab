"""The HTML page of a drift: figures, labels, and the photos that make the difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgetl.evaluation import plots
from edgetl.evaluation.report_page import drawn, page_thumbnail, render, short_name
from edgetl.runtime.drift.drift_result import DriftResult

_MAX_PHOTOS = 24


def as_html(result: DriftResult) -> str:
    """A whole HTML document. Raises MissingDependencyError without jinja2 or matplotlib."""
    photos = [(photo, Path(photo.file)) for photo in result.photos[:_MAX_PHOTOS]]
    return render(
        Path(__file__).parent / "templates/drift.html.jinja",
        photos=len(result.answers),
        name=Path(result.model).resolve().name,
        result=result,
        found=result.comparison,
        scores=_scores(result),
        shown=[(photo, short_name(path), page_thumbnail(path)) for photo, path in photos],
    )


def _scores(result: DriftResult) -> object:
    """The distribution of the scores: its largest gap is what their comparison looks at."""
    today = result.answers.ood_score[result.comparison.compared]
    series = {
        name: (np.sort(scores).tolist(), (np.arange(1, len(scores) + 1) / len(scores)).tolist())
        for name, scores in (("held-out photos", result.known.ood_score), ("these photos", today))
    }
    share = "share of photos at or below"
    return drawn(plots.line_plot("scores", series, x="ood_score", y=share, percent=True))
