"""What an export wrote, as the HTML page that a notebook shows."""

from __future__ import annotations

from pathlib import Path

from edgetl.evaluation.report_page import render
from edgetl.exporting.export_result import ExportResult


def as_html(result: ExportResult) -> str:
    """A whole HTML document. Raises MissingDependencyError without jinja2 or matplotlib."""
    models = {name: size for name, size in result.files.items() if "/" not in name}
    return render(
        Path(__file__).with_name("export.html.jinja"),
        photos=max((found.photos for found in result.precisions.values()), default=0),
        name=result.folder.resolve().name,
        result=result,
        models=models,
        web=[size for name, size in result.files.items() if name.startswith("web/")],
    )
