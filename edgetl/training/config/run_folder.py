"""The files of a run folder, and whether a run may start or resume there.

Imports nothing heavy: these errors are raised before torch is loaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edgetl.errors import CheckpointError
from edgetl.system.atomic_write import unfinished_writes
from edgetl.system.paths import is_there, real_path
from edgetl.system.shell import shell_word
from edgetl.training.config.checkpoint_description import read_description

BEST = "best.safetensors"
LAST = "last.pt"
HISTORY = "history.csv"
METRICS = "metrics.json"
REPORT = "report.html"
VALIDATION_TABLE = "validation.csv"
LABEL_ISSUES_TABLE = "doubtful.csv"
REVIEW_LOG = "review.jsonl"  # stays when a run is replaced: it says what was moved and kept
COMPARISON = "since.json"
EVENTS = "tensorboard"
RATES, RATES_PLOT = "lr.csv", "lr.png"  # of --find-lr; a run may start beside them
# ``clear`` deletes them in this order: weights before what was measured on them.
_FILES = (
    *(BEST, LAST, HISTORY, VALIDATION_TABLE, LABEL_ISSUES_TABLE, COMPARISON),
    *(REPORT, METRICS),
)


def require_free(
    folder: Path, overwrite: bool, settings: Collection[Mapping[str, Any]] = ()
) -> None:
    """Check that a new run may be written into ``folder``.

    settings  that the new run may have (JSON): it may finish one without epochs that was killed
              before its end, if that had the same

    Raises CheckpointError if it holds a run and ``overwrite`` is False, or files of other programs.
    """
    present = _present(folder)
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file.", "Choose another folder with -o.")
    if not present and (other := _other_file(folder)):
        raise CheckpointError(
            f"{folder} holds {other!r} and no run.", "Choose a new or an empty folder with -o."
        )
    if overwrite or not present:
        return
    if {BEST, LAST} & present:
        unfinished = unfinished_head(folder)
        if unfinished is not None and unfinished["settings"] in settings:
            return
        resume = ""
        if is_resumable(folder):
            resume = f"Go on with it: edgetl train --resume {shell_word(folder)}\n"
        raise CheckpointError(
            f"{folder} holds a run already.",
            f"{resume}Replace it with --overwrite, or choose another folder with -o.",
        )
    raise CheckpointError(
        f"{folder} holds {min(present)} already, which a run would write.",
        "Choose another folder with -o, or replace it with --overwrite.",
    )


def refuse_photos_folder(folder: Path, data: str | Path, option: str = "-o") -> None:
    """Raise CheckpointError if ``folder`` is the folder of the photos or inside it.

    The next run would take what is written there for a class of photos.
    """
    if real_path(folder).is_relative_to(real_path(data)):
        raise CheckpointError(
            f"{folder} lies inside the folder of the photos.",
            f"Choose another folder with {option}.",
        )


def checkpoint_file(source: str | Path) -> Path:
    """The checkpoint of a run's folder, or the ``.safetensors`` file that ``source`` is.

    Raises CheckpointError if there is none.
    """
    path = Path(source)
    path = path / BEST if path.is_dir() else path
    if path.name == LAST:
        raise CheckpointError(
            f"{path} is the state of a run, not a checkpoint.",
            f"Name the run's folder, {path.parent}.",
        )
    if not (is_there(path) and path.is_file()):
        hint = "Name a folder that edgetl train or edgetl import wrote."
        if path.name == BEST and (path.parent / LAST).is_file():
            hint = (
                "The run ended before it kept one; continue it with "
                f"edgetl train --resume {shell_word(path.parent)}"
            )
        raise CheckpointError(f"There is no checkpoint {path}.", hint)
    return path


def is_resumable(folder: Path) -> bool:
    """Whether ``folder`` holds an interrupted run. Raises CheckpointError if it can't be read."""
    present = _present(folder)
    # Without weights, the metrics are of an earlier run that it began to replace.
    has_state = LAST in present and not {BEST, METRICS} <= present
    return has_state or unfinished_head(folder) is not None


def require_resumable(folder: Path) -> None:
    """Raises CheckpointError if ``folder`` holds no interrupted run."""
    present = _present(folder)
    if folder.is_file():
        hint = f"Name the run's folder: edgetl train --resume {shell_word(folder.parent)}"
        raise CheckpointError(f"{folder} is a file.", hint)
    if unfinished_head(folder) is not None:
        return
    if LAST not in present and METRICS in present:
        raise CheckpointError(f"The run in {folder} is finished.", how_to_train_further(folder))
    if LAST not in present:
        overwrite = " --overwrite" if present else ""
        start = f"Start it with edgetl train DATA -o {shell_word(folder)}{overwrite}"
        holds_no_run = not present and _other_file(folder)
        raise CheckpointError(
            f"There is nothing to resume in {folder}.",
            "Name a run's folder." if holds_no_run else start,
        )


def unfinished_head(folder: Path) -> dict[str, Any] | None:
    """The description of the weights in ``folder``, if they are all that their run has written.

    That is a run without epochs that was killed, or found the disk full, before its metrics were
    written. It saves no state: it is finished by doing it again, with the same result. Raises
    CheckpointError if the folder can't be read.
    """
    from edgetl.training.config.settings import SOLVER  # which imports this file

    present = _present(folder)
    if LAST in present or BEST not in present:
        return None
    description = read_description(folder / BEST)
    if description is None or description["settings"].get("optimizer") != SOLVER:
        return None
    finished = METRICS in present and metrics_belong(folder, description["card"])
    return None if finished else description


def metrics_belong(folder: Path, card: Mapping[str, Any]) -> bool:
    """Whether metrics.json was written for the weights with this model card (JSON).

    Metrics that can't be read, or say nothing that the card says, count as theirs.
    """
    try:
        metrics = json.loads((folder / METRICS).read_bytes())
    except (OSError, ValueError):
        return True
    expected = {**card["metrics"], "temperature": card["temperature"]}
    return not isinstance(metrics, dict) or all(
        metrics.get(name, value) == value for name, value in expected.items()
    )


def how_to_train_further(folder: Path) -> str:
    """The hint for a run that is finished."""
    weights = shell_word(folder / BEST)
    return (
        "To train its network further, start another run: "
        f"edgetl train DATA -o NEW --weights {weights}"
    )


def _present(folder: Path) -> set[str]:
    """Names of the files of a run that are in ``folder``."""
    try:
        return {name for name in (*_FILES, EVENTS) if is_there(folder / name)}
    except OSError as error:
        raise unreadable_folder(folder, error) from error


def _other_file(folder: Path) -> str | None:
    """The name of a file that is not hidden and not written by edgetl, if there is one."""
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise unreadable_folder(folder, error) from error
    others = (name for name in names if name[0] != "." and name not in (RATES, RATES_PLOT))
    return next(others, None)


def clear(folder: Path, *, but: str) -> None:
    """Delete all that earlier runs left in ``folder``, except the file named ``but``.

    Files not written by edgetl stay, and candidates. Raises CheckpointError.
    """
    try:
        for name in _FILES:
            if name != but:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    shutil.rmtree(folder / EVENTS, ignore_errors=True)


def candidate_name(key: str) -> str:
    """The file name of weights that become the best ones when ``promote_candidate`` is called.

    Until then, the state in ``LAST`` does not know of them, and a killed run goes on without them.

    key  tells candidates apart: ``TrainState.candidate``
    """
    return f".{BEST}.{key}"


def promote_candidate(folder: Path, key: str) -> None:
    """Rename the candidate ``key``, if there is one, to ``BEST``, and discard all others.

    Those are of a run that was killed before it saved its state, and that repeats their epoch.
    Raises CheckpointError.
    """
    try:
        if (folder / candidate_name(key)).exists():
            (folder / candidate_name(key)).replace(folder / BEST)
    except OSError as error:
        raise _unwritable(folder, error) from error
    discard_candidates(folder)


def discard_candidates(folder: Path) -> None:
    """Delete all candidates, and the temporary files of killed runs. Raises CheckpointError."""
    candidates = candidate_name("*")
    try:
        for path in (*folder.glob(candidates), *folder.glob(f".{candidates}.part")):
            path.unlink(missing_ok=True)
        for name in _FILES:  # not of --find-lr, which does not lock the folder
            for path in unfinished_writes(folder / name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def unreadable_folder(folder: Path, error: OSError) -> CheckpointError:
    """The error for a run folder that can't be listed or opened."""
    return CheckpointError(
        f"{folder} can't be read: {error.strerror}.", "Choose another folder with -o."
    )


def _unwritable(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{folder} can't be written: {error.strerror}.", "Check that files can be written there."
    )
