"""What lies in a run's folder, and whether a run may begin there or go on. Imports nothing heavy: these errors come first."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgetl.errors import CheckpointError

BEST = "best.safetensors"
LAST = "last.pt"
HISTORY = "history.csv"
METRICS = "metrics.json"
REPORT = "report.html"
EVENTS = "tensorboard"


def require_free(folder: Path, overwrite: bool) -> None:
    """Raises CheckpointError if a run would write over what is in ``folder``, unless it may."""
    if overwrite:
        return
    if any((folder / name).exists() for name in (BEST, LAST)):
        go_on = f"Go on with it: edgetl train --resume {folder}\n" if not (folder / METRICS).exists() else ""
        raise CheckpointError(
            f"{folder} holds a run already.",
            f"{go_on}Throw it away with --overwrite, or choose another folder with -o.",
        )
    for name in (HISTORY, METRICS, REPORT, EVENTS):
        if (folder / name).exists():
            raise CheckpointError(
                f"{folder} holds {name} already, which a run would write.",
                "Choose another folder with -o, or throw it away with --overwrite.",
            )


def require_begun(folder: Path) -> Path:
    """Where a run stands, as a file. Raises CheckpointError if there is none in ``folder``."""
    if not (folder / LAST).is_file():
        raise CheckpointError(f"There is nothing to resume in {folder}.", "Start it with edgetl train DATA -o " + str(folder))
    return folder / LAST


def clear(folder: Path) -> None:
    """What an earlier run left in the folder goes, nothing else. Raises CheckpointError if that can't be done."""
    try:
        for name in (LAST, BEST, HISTORY, METRICS, REPORT):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written: {error.strerror}.", "Choose another folder with -o.") from error
    shutil.rmtree(folder / EVENTS, ignore_errors=True)
