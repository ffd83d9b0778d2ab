"""What lies in a run's folder, and whether a run may begin there or go on. Imports nothing heavy: these errors come first."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgetl.errors import CheckpointError
from edgetl.system.paths import is_there, real_path
from edgetl.system.shell import shell_word
from edgetl.training.config.run_files import part_of

BEST = "best.safetensors"
LAST = "last.pt"
HISTORY = "history.csv"
METRICS = "metrics.json"
REPORT = "report.html"
VALIDATION_TABLE = "validation.csv"
LABEL_ISSUES_TABLE = "doubtful.csv"
EVENTS = "tensorboard"
HEAD_ONLY = "solved"
_FILES = (BEST, LAST, HISTORY, METRICS, REPORT, VALIDATION_TABLE, LABEL_ISSUES_TABLE)
_MEND = "See that files can be written there."
RATES, RATES_PLOT = "lr.csv", "lr.png"  # of --find-lr, beside which a run may begin


def require_free(folder: Path, overwrite: bool) -> None:
    """Raises CheckpointError if a run would write over what is in ``folder``, unless it may, or between other things."""
    present = _present(folder)
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file.", "Choose another folder with -o.")
    if not present and (other := _other_things(folder)):
        raise CheckpointError(
            f"{folder} holds {other!r} and no run.", "Choose a new or an empty folder with -o."
        )
    if overwrite:
        return
    if {BEST, LAST} & present:
        go_on = (
            f"Go on with it: edgetl train --resume {shell_word(folder)}\n"
            if can_go_on(folder)
            else ""
        )
        raise CheckpointError(
            f"{folder} holds a run already.",
            f"{go_on}Throw it away with --overwrite, or choose another folder with -o.",
        )
    if present:
        raise CheckpointError(
            f"{folder} holds {min(present)} already, which a run would write.",
            "Choose another folder with -o, or throw it away with --overwrite.",
        )


def refuse_photos_folder(folder: Path, data: str | Path, option: str = "-o") -> None:
    """Raises CheckpointError if ``folder`` is the photos' own, or inside it: what is written there is no class."""
    if real_path(folder).is_relative_to(real_path(data)):
        raise CheckpointError(
            f"{folder} lies inside the folder of the photos.",
            f"Choose another folder with {option}.",
        )


def _other_things(folder: Path) -> str | None:
    """Something that is neither hidden nor written by edgetl."""
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise CheckpointError(
            f"{folder} can't be read: {error.strerror}.", "Choose another folder with -o."
        ) from error
    return next(
        (name for name in names if not name.startswith(".") and name not in (RATES, RATES_PLOT)),
        None,
    )


def can_go_on(folder: Path) -> bool:
    """Whether ``folder`` holds a run that was interrupted and can be resumed. Raises CheckpointError."""
    present = _present(folder)
    return LAST in present and METRICS not in present


def _present(folder: Path) -> set[str]:
    try:
        return {name for name in (*_FILES, EVENTS) if is_there(folder / name)}
    except OSError as error:
        raise CheckpointError(
            f"{folder} can't be read: {error.strerror}.", "Choose another folder with -o."
        ) from error


def require_begun(folder: Path) -> Path:
    """Where a run stands, as a file. Raises CheckpointError if there is none in ``folder``."""
    present = _present(folder)
    if folder.is_file():
        hint = f"Name the run's folder: edgetl train --resume {shell_word(folder.parent)}"
        raise CheckpointError(f"{folder} is a file.", hint)
    if LAST not in present and METRICS in present:
        raise CheckpointError(f"The run in {folder} is finished.", how_to_train_further(folder))
    if LAST not in present:
        again = " --overwrite" if present else ""
        begin = f"Start it with edgetl train DATA -o {shell_word(folder)}{again}"
        no_run = not present and _other_things(folder)
        raise CheckpointError(
            f"There is nothing to resume in {folder}.", "Name a run's folder." if no_run else begin
        )
    return folder / LAST


def how_to_train_further(folder: Path) -> str:
    """For a run that is finished."""
    return f"To train its network further, begin another run: edgetl train DATA -o NEW --weights {shell_word(folder / BEST)}"


def clear(folder: Path, *, but: str) -> None:
    """What an earlier run left in the folder goes, nothing else; ``but`` is the new one's. Raises CheckpointError."""
    try:
        for name in _FILES:
            for path in (folder / name, folder / part_of(name)):
                if path.name != but:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written: {error.strerror}.", _MEND) from error
    discard_candidates(folder)
    shutil.rmtree(folder / EVENTS, ignore_errors=True)


def candidate_name(what: str) -> str:
    """What weights are called that will be the best ones as soon as ``promote_candidate`` is told of them.

    what  ``Standing.kept``, or ``HEAD_ONLY`` in a run without epochs: none with epochs takes them for its own
    """
    return f".{BEST}.{what}"


def promote_candidate(folder: Path, what: str) -> None:
    """Make the weights that wait under this name the best ones, if there are any, and let others that wait go: of a run
    that was killed before ``LAST`` knew of them, and that will do their epoch again. Raises CheckpointError.
    """
    try:
        if (folder / candidate_name(what)).exists():
            (folder / candidate_name(what)).replace(folder / BEST)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written: {error.strerror}.", _MEND) from error
    discard_candidates(folder)


def discard_candidates(folder: Path) -> None:
    """Let all weights that wait go. Raises CheckpointError."""
    try:
        for pattern in (candidate_name("*"), part_of(candidate_name("*"))):
            for path in folder.glob(pattern):
                path.unlink()
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written: {error.strerror}.", _MEND) from error
