"""What every part of a training run needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.training.config.earlier_run import EarlierRun
from edgetl.training.config.listener import RecordingListener
from edgetl.training.config.model_trial import ModelTrial
from edgetl.training.config.settings import TrainSettings

if TYPE_CHECKING:
    import torch

    from edgetl.training.torch_env.distributed import Processes


@dataclass(frozen=True)
class RunContext:
    """One run, or one part of a run that was resumed.

    settings   what to do
    folder     the run folder
    processes  this process among those that train together, and its device
    listener   records the notes; passes everything on, in the main process only
    started    ``time.monotonic()`` when the run, or this part of it, began
    trials     the networks that the run's was chosen from; () without a budget
    since      the run that it is compared with, if any
    """

    settings: TrainSettings
    folder: Path
    processes: Processes
    listener: RecordingListener
    started: float
    trials: tuple[ModelTrial, ...] = ()
    since: EarlierRun | None = None

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.processes.device
