"""The photos of each day that are most worth labelling, copied with their answers.

``FOLDER/2026-03-01/`` holds the copies and ``answers.jsonl``, in which those most worth labelling
come first. However often the day's photos are classified, and by however many processes, no more
than the given number of them is kept.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.errors import EdgetlError
from edgetl.runtime.inference.prediction import Prediction
from edgetl.runtime.results.records import json_line, plain_name
from edgetl.system.atomic_write import atomic_write
from edgetl.system.file_lock import try_lock

ANSWERS = "answers.jsonl"
_SAVE_SECONDS = 10.0  # what a kill can cost
_LOCK_SECONDS = 0.05  # between two attempts
_DIGITS = 32  # of a copy's name, which are the first of its SHA-256


class DoubtfulPhotos:
    """Collects the most doubtful photos; call ``save`` at the end.

    folder  created if it does not exist
    most    how many photos of one day are kept
    model   ``Predictor.model_id``, which goes into the answers

    Raises EdgetlError if ``folder`` can't be written.
    """

    def __init__(self, folder: Path, most: int, model: str) -> None:
        self._folder, self._most, self._model = folder, most, model
        self._new: list[tuple[float, int, Prediction]] = []  # a heap, the least doubtful first
        self._count = 0
        self._saved = time.monotonic()
        with _errors_of(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, result: object) -> None:
        """Take a result into account; one that is no ``Prediction`` says nothing."""
        if not isinstance(result, Prediction):
            return
        self._count += 1  # of equally doubtful photos, the first is kept
        heapq.heappush(self._new, (doubt(result), -self._count, result))
        if len(self._new) > self._most:
            heapq.heappop(self._new)
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Put what was added into the folder of today. Raises EdgetlError if that fails."""
        new, self._new = self._new, []
        if new:
            with _errors_of(self._folder), _locked(self._folder):
                self._merge(self._folder / date.today().isoformat(), new)
        self._saved = time.monotonic()

    def _merge(self, day: Path, new: list[tuple[float, int, Prediction]]) -> None:
        """New copies are written first and old ones removed last: every answer has its photo."""
        day.mkdir(exist_ok=True)
        for leftover in day.glob(".*.part"):  # of a process that was killed here
            leftover.unlink(missing_ok=True)
        rows = {row["path"]: row for row in _read(day / ANSWERS) if (day / row["path"]).is_file()}
        sources = {}
        for value, _, prediction in new:
            source = Path(prediction.source)
            try:
                with source.open("rb") as content:
                    digest = hashlib.file_digest(content, "sha256").hexdigest()[:_DIGITS]
            except OSError:  # it was there a moment ago: whoever removed it does not want it
                continue
            name = digest + source.suffix.lower()
            sources[name], rows[name] = source, self._row(name, value, prediction)
        kept = sorted(rows.values(), key=lambda row: -row["doubt"])[: self._most]
        names = {row["path"] for row in kept}
        for name in names & sources.keys():
            if not (day / name).exists():
                atomic_write(day / name, partial(shutil.copyfile, sources[name]))
        lines = b"".join(map(json_line, kept))
        atomic_write(day / ANSWERS, lambda path: path.write_bytes(lines))
        for file in day.iterdir():
            if file.name not in names and _is_copy(file.name):
                file.unlink(missing_ok=True)

    def _row(self, name: str, value: float, prediction: Prediction) -> dict[str, Any]:
        answer = prediction.to_dict()
        # Not as "source" and "label": the list can be read as one of photos, and what the model
        # takes them for must not be taken for their label.
        original, predicted = plain_name(answer.pop("source")), answer.pop("label")
        return {
            "path": name,
            "original": original,
            "model": self._model,
            "doubt": value,
            "predicted": predicted,
            **answer,
        }


def doubt(prediction: Prediction) -> float:
    """How much a label for the photo would teach: the higher, the more.

    The model's ``ood_score``, which adds up how far the photo is from the training photos and how
    undecided the answer is; without it, how undecided: the entropy of the probabilities.
    """
    if prediction.ood_score is not None:
        return float(prediction.ood_score)
    shares = prediction.probabilities[prediction.probabilities > 0]
    return float(-(shares * np.log(shares)).sum())


def _read(file: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of ``answers.jsonl`` as this file writes them; others are dropped."""
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            row = json.loads(line)
            if _is_copy(row["path"]) and math.isfinite(row["doubt"]):
                yield row
        except (AttributeError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue


def _is_copy(name: str) -> bool:
    """Whether a file is named as the copies are; nothing else is ever removed."""
    digits, _, suffix = name.partition(".")
    return len(digits) == _DIGITS and set(digits) <= set("0123456789abcdef") and "/" not in suffix


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process merges photos into ``folder``."""
    if os.name != "posix":  # where a folder can't be opened
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while try_lock(descriptor) is False:
            time.sleep(_LOCK_SECONDS)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _errors_of(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EdgetlError(
            f"Doubtful photos can't be kept in {folder}: {error.strerror or error}.",
            "Name another folder with --keep-doubtful, or make room.",
        ) from error
