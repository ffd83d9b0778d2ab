"""What a training run returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.system.notebook import NotebookResult
from edgetl.training.config.settings import TrainSettings
from edgetl.training.evaluation.run_comparison import RunComparison


@dataclass(frozen=True)
class TrainResult(NotebookResult):
    """How a training run ended.

    folder    the run folder: best.safetensors, report.html, metrics.json and more
    finished  False if Ctrl-C or SIGTERM stopped the run; ``train(resume=folder)`` continues it
    metrics   the content of metrics.json: accuracy, loss, epoch, temperature, classes and more.
              Empty if the run is not finished, and in torchrun's processes other than the first
    settings  the value of every option, as the recipe, the device and the defaults completed them
    since     what changed since the run that ``since`` named; None without it
    """

    folder: Path
    finished: bool
    metrics: Mapping[str, Any]
    settings: TrainSettings
    since: RunComparison | None = None

    _page = "edgetl.training.evaluation.report:saved_report"
