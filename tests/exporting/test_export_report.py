"""An export's result as a notebook shows it."""

from __future__ import annotations

import html
from pathlib import Path

from edgetl.exporting.export_report import as_html
from edgetl.exporting.export_result import AccuracyComparison, ExportResult, Verification

RESULT = ExportResult(
    folder=Path("exported/a & b"),
    files={"model.onnx": 13_480_000, "model.int8.onnx": 3_500_000, "golden/000.jpg": 9_000},
    opsets={"fp32": 13, "int8": 13},
    golden=1,
    verification={"fp32": Verification(11, 1e-5, 3.3e-6), "torchscript": Verification(11, 0, 0)},
    precisions={"int8": AccuracyComparison(200, 0.985, 0.99, 0.975, 0.5, {})},
    warnings=("Look <here>.",),
)


def test_files_differences_and_accuracies_are_shown():
    page = as_html(RESULT)
    for words in ("model.onnx", "13.48", "3.50", "golden/, 1 photo", "3.3e-06", "98.5", "97.5"):
        assert words in page
    assert "Look &lt;here&gt;." in page and "a &amp; b" in page and "000.jpg" not in page


def test_a_notebook_shows_the_page():
    shown = html.unescape(RESULT._repr_html_() or "")
    assert shown.startswith("<iframe") and "Compared with the trained network" in shown
