"""The finished run that a new one is compared with, as its folder describes it.

Imports nothing heavy: its errors are raised before torch is loaded.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgetl.data.photo_digests import short_digest, unpack
from edgetl.errors import CheckpointError, TrainingError
from edgetl.system.paths import real_path
from edgetl.system.shell import shell_word
from edgetl.training.config.checkpoint_description import read_description
from edgetl.training.config.run_folder import BEST, METRICS, VALIDATION_TABLE, is_resumable

_DIGEST_BYTES = 32  # of SHA-256


class EarlierAnswer(NamedTuple):
    """What a run answers for a photo that it was not fitted to.

    label       the class that it predicts
    confidence  0..1
    is_new      whether the run did not have the photo, neither to train nor to validate on
    """

    label: str
    confidence: float
    is_new: bool


@dataclass(frozen=True)
class EarlierRun:
    """A finished run.

    folder      as it was named
    labels      class names, in the order of the outputs
    trained_on  the photos that its weights were fitted to, as ``short_digest`` writes them
    validated   SHA-256 (hex) → answer, of the photos that it validated on, by weights that were not
                fitted to these
    """

    folder: Path
    labels: tuple[str, ...]
    trained_on: frozenset[str]
    validated: Mapping[str, EarlierAnswer]

    def had(self, digest: str) -> bool:
        """Whether the photo with this SHA-256 (hex) was among those of the run."""
        return digest in self.validated or short_digest(digest) in self.trained_on

    @property
    def photos(self) -> frozenset[str]:
        """All photos of the run, as ``short_digest`` writes them."""
        return self.trained_on.union(map(short_digest, self.validated))


def read_earlier_run(since: str | Path | None, out: str | Path) -> EarlierRun | None:
    """The run in the folder ``since``, to compare one in ``out`` with; None for None.

    Raises CheckpointError if it is no finished run, does not list its photos, or is ``out``.
    """
    if since is None:
        return None
    folder = Path(since)
    if real_path(folder) == real_path(out):
        raise CheckpointError(
            f"{folder} is the run that is to be written.",
            "Choose another folder with -o, and compare with the one that stays.",
        )
    description = read_description(folder / BEST)
    if description is not None and "imported" in description["settings"]:
        raise CheckpointError(
            f"{folder} holds an imported network; what it was trained on is not known.",
            "To compare with it, classify the same photos with both: edgetl evaluate.",
        )
    finished = (folder / METRICS).is_file()
    if description is None and finished and (folder / BEST).is_file():
        raise CheckpointError(
            f"{folder / BEST} can't be read as weights of this version.",
            "Is the file damaged? Train that run again, or use a copy.",
        )
    if description is None or not finished:
        resume = f"Finish it: edgetl train --resume {shell_word(folder)}"
        raise CheckpointError(
            f"There is no finished run in {folder}.",
            resume if is_resumable(folder) else "Name the folder of a run with --since.",
        )
    try:
        trained_on = unpack(description["photos"])
        validated = _read_answers(folder / VALIDATION_TABLE)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise CheckpointError(
            f"{folder} does not say which photos it was trained and validated on.",
            f"Is its {VALIDATION_TABLE} gone, or of an earlier version? Train it again.",
        ) from error
    return EarlierRun(folder, tuple(description["card"]["labels"]), trained_on, validated)


def require_common_class(earlier: EarlierRun, classes: Iterable[str]) -> None:
    """Raise TrainingError if the earlier run knows none of ``classes``."""
    if not set(classes) & set(earlier.labels):
        raise TrainingError(
            f"{earlier.folder} has no class in common with these photos.",
            "Name a run on photos of the same kind with --since.",
        )


def _read_answers(table: Path) -> dict[str, EarlierAnswer]:
    """SHA-256 → answer. Raises OSError, and others for a table that is not one of answers."""
    with table.open(encoding="utf-8", newline="") as file:
        rows: Sequence[Mapping[str, str]] = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{table} holds no answer")
    answers = {}
    for row in rows:
        digest, confidence = row["sha256"], float(row["confidence"])
        if len(bytes.fromhex(digest)) != _DIGEST_BYTES or not 0 <= confidence <= 1:
            raise ValueError(f"{table} has a row that is not an answer: {row}")
        answers[digest] = EarlierAnswer(row["answer"], confidence, False)
    return answers
