"""How a run starts, whether new or resumed: its processes, its context, and its folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgetl.errors import TrainingError
from edgetl.training.config.earlier_run import EarlierRun
from edgetl.training.config.listener import Listener, RecordingListener
from edgetl.training.config.model_trial import ModelTrial
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.run_lock import lock_run_folder, make_folder, require_seen_by_all
from edgetl.training.config.settings import SOLVER, TrainSettings
from edgetl.training.evaluation.run_records import summary_writer
from edgetl.training.input.photo_storage import remove_leftovers
from edgetl.training.optim.optimizers import reduced_type
from edgetl.training.torch_env.distributed import Processes, join
from edgetl.training.torch_env.malloc import keep_freed_memory
from edgetl.training.torch_env.torch_flags import reproducible

# Held by a run. Torch's flags, its random generators and the threads of linear algebra are the
# process's: runs side by side would compute other bits, and leave another's settings behind.
_TRAINING = threading.RLock()


@contextmanager
def start_run(
    settings: TrainSettings,
    folder: Path,
    listener: Listener | None,
    started: float,
    *,
    notes: Sequence[str] = (),
    trials: tuple[ModelTrial, ...] = (),
    since: EarlierRun | None = None,
) -> Iterator[RunContext]:
    """Join the processes that train together, with torch set up for training.

    A run that another thread of this process has started is awaited first; ``started`` is moved on
    by as long.

    notes  those of the interrupted run that this one resumes; for the others, see ``RunContext``

    Raises the errors of settings that this machine can't run with, before anything is done.
    """
    called = time.monotonic()
    with _TRAINING:
        started += time.monotonic() - called
        with (
            join(settings.device) as processes,
            reproducible(processes.device),
            keep_freed_memory(processes.device),
        ):
            check_machine(settings, processes)
            spoken_to = listener if listener and processes.is_main else Listener()
            recording = RecordingListener(spoken_to, notes)
            yield RunContext(settings, folder, processes, recording, started, trials, since)


def check_machine(settings: TrainSettings, processes: Processes) -> None:
    """Raise now the errors that would otherwise come minutes later, after photos are decoded."""
    reduced_type(settings.precision, processes.device)
    if settings.batch_size < processes.world_size and settings.optimizer != SOLVER:
        raise TrainingError(
            f"A batch of {settings.batch_size} can't be split over "
            f"{processes.world_size} processes.",
            "Use a larger --batch-size.",
        )
    if settings.tensorboard:
        summary_writer()


@contextmanager
def run_folder_held(context: RunContext) -> Iterator[None]:
    """Make the run folder, see that all processes share it, and keep other runs out of it.

    Raises CheckpointError if it can't be written, another run holds it, or a process sees another.
    """
    with ExitStack() as held:
        if context.processes.is_main:
            make_folder(context.folder)
            held.enter_context(lock_run_folder(context.folder))
            remove_leftovers(context.folder)
        require_seen_by_all(context.folder, context.processes)
        yield
