"""What an import found, as the HTML page that a notebook shows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from edgetl.evaluation.metrics import ClassMetrics
from edgetl.evaluation.report_page import render
from edgetl.training.importing.import_result import ImportResult


def as_html(result: ImportResult) -> str:
    """A whole HTML document. Raises MissingDependencyError without jinja2 or matplotlib."""
    metrics = result.metrics
    return render(
        Path(__file__).with_name("import.html.jinja"),
        photos=metrics.get("photos", 0),
        name=result.folder.resolve().name,
        result=result,
        metrics=metrics,
        preprocessing=asdict(result.spec),
        classes=[(ClassMetrics(**found), None) for found in metrics.get("classes", ())],
    )
