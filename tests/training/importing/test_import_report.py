"""An import's result as a notebook shows it."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

from helpers.tiny_network import CROPPED

from edgetl.training.importing.import_report import as_html
from edgetl.training.importing.import_result import ImportResult

RESULT = ImportResult(
    folder=Path("runs/ants & bees"),
    backbone="resnet50",
    labels=("ant", "<bee>"),
    spec=CROPPED,
    metrics={},
    notes=("As published: mean.",),
)


def test_labels_and_preprocessing_are_shown():
    page = as_html(RESULT)
    for words in (
        "ants &amp; bees",
        "resnet50",
        "ant, &lt;bee&gt;",
        "shorter_side",
        "As published",
    ):
        assert words in page
    assert "accuracy" not in page


def test_a_notebook_shows_how_well_it_does_and_what_looks_wrong():
    ant = {"label": "ant", "photos": 30, "precision": 0.875, "recall": None, "f1": 0.5}
    metrics = {"accuracy": 0.75, "accuracy_interval": [0.6, 0.85], "photos": 40, "classes": [ant]}
    result = replace(RESULT, metrics=metrics, warnings=("BGR?",))
    shown = html.unescape(result._repr_html_() or "")
    for words in ("75.0", "60.0", "40", "87.5", "BGR?"):
        assert words in shown
