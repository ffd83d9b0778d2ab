"""The labels that a finished run calls likely wrong, read back without torch."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from edgetl.data.label_review import DoubtfulPhoto
from edgetl.data.photo_source import PhotoSource
from edgetl.errors import CheckpointError
from edgetl.system.paths import is_there
from edgetl.system.shell import shell_word
from edgetl.training.config.checkpoint_description import read_description
from edgetl.training.config.run_folder import BEST, LABEL_ISSUES_TABLE, METRICS
from edgetl.training.evaluation.run_records import LABEL_ERROR


@dataclass(frozen=True)
class RunLabelIssues:
    """The photos of a run whose label is likely wrong.

    source  where all its photos are
    labels  its classes
    photos  the likeliest errors first
    """

    source: PhotoSource
    labels: tuple[str, ...]
    photos: tuple[DoubtfulPhoto, ...]


def read_label_issues(run: Path) -> RunLabelIssues:
    """What the run folder says. Raises CheckpointError if it holds no finished training run."""
    description = read_description(run / BEST)
    if description is None or not is_there(run / METRICS):
        raise CheckpointError(
            f"{run} holds no finished run.", "Name a folder that edgetl train wrote with -o."
        )
    settings = description["settings"]
    if not settings.get("data"):
        raise CheckpointError(
            f"The network in {run} was imported, so nothing is known of its training photos.",
            "Train on them: edgetl train DATA -o NEW",
        )
    source = PhotoSource.at(settings["data"], settings.get("columns"), settings.get("root"))
    if source.is_gone:
        raise CheckpointError(
            f"The photos of {run} are no longer at {source.path}.",
            f"Put them back, or train where they are: edgetl train DATA -o {shell_word(run)}",
        )
    return RunLabelIssues(source, tuple(description["card"]["labels"]), _read_table(run))


def _read_table(run: Path) -> tuple[DoubtfulPhoto, ...]:
    table = run / LABEL_ISSUES_TABLE
    try:
        if not is_there(table):
            return ()
        with table.open(encoding="utf-8", newline="") as file:
            return tuple(
                DoubtfulPhoto(row["file"], row["label"], row["answer"], _share(row[LABEL_ERROR]))
                for row in csv.DictReader(file, strict=True)
            )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise CheckpointError(
            f"{table} can't be read as a table of doubtful labels ({error}).",
            "Train again to have it written anew.",
        ) from error


def _share(text: str) -> float:
    """A number of 0..1. Raises ValueError, also for nan."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(f"{LABEL_ERROR} is {text}")
    return number
