"""What importing a network returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.notebook import NotebookResult


@dataclass(frozen=True)
class ImportResult(NotebookResult):
    """A network that was trained elsewhere, as a run that ``edgetl.export`` takes.

    folder    the run folder: best.safetensors, and metrics.json if photos were given
    backbone  the named architecture, or "torchscript/<class>" for a network held as a program
    labels    class names, in the order of the outputs
    spec      the preprocessing that every export will do
    metrics   accuracy, accuracy_interval, photos, loss, classes and more of the labelled photos;
              empty without them
    notes     what was decided from the file, and not by the caller
    warnings  what looks like a mistake: labels in another order, BGR, other means
    """

    folder: Path
    backbone: str
    labels: tuple[str, ...]
    spec: PreprocessSpec
    metrics: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    _page = "edgetl.training.importing.import_report:as_html"
