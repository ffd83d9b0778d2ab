"""The photos of each day that are most worth labelling, copied with their answers.

``FOLDER/2026-03-01/`` holds the copies and ``answers.jsonl``, in which those most worth labelling
come first. However often the day's photos are classified, and by however many processes, no more
than the given number of them is kept. Photos that have the same bytes, or that the model sees no
difference between, are kept once.
"""

from __future__ import annotations

import errno
import hashlib
import heapq
import json
import math
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import EdgetlError
from edgetl.runtime.bundle.probability_tolerances import PROBABILITY_TOLERANCES, activation_limit
from edgetl.runtime.inference.prediction import Prediction
from edgetl.runtime.results.records import json_line, plain_name
from edgetl.system.atomic_write import atomic_write
from edgetl.system.file_lock import try_lock

ANSWERS_FILE = "answers.jsonl"
_SAVE_SECONDS = 10.0  # what a kill can cost
_LOCK_SECONDS = 0.05  # between two attempts
_DIGITS = 32  # of a copy's name, which are the first of its SHA-256
# As exact as one model is about the same pixels, whatever its precision.
_SAME = activation_limit(PROBABILITY_TOLERANCES["fp32"])
_EMBEDDING_DIGITS = 4  # after the point: rounding adds less than half of that

Embedding = NDArray[np.float32]


class _Doubtful(NamedTuple):
    """A photo, in the order of a heap: the least doubtful one and, of equal ones, the last first.

    name  of its copy, by its bytes
    """

    doubt: float
    turn: int
    name: str
    prediction: Prediction


class DoubtfulPhotos:
    """Collects the most doubtful photos; call ``save`` at the end.

    folder  created if it does not exist
    most    how many photos of one day are kept
    model   ``Predictor.model_id``, which goes into the answers

    ``copies`` counts the photos that are left out as copies of others. Raises EdgetlError if
    ``folder`` can't be written.
    """

    def __init__(self, folder: Path, most: int, model: str) -> None:
        self._folder, self._most, self._model = folder, most, model
        self._new: list[_Doubtful] = []  # a heap
        self._count = self.copies = 0
        self._saved = time.monotonic()
        with _errors_of(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):  # before the photos are classified
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def add(self, result: object) -> None:
        """Take a result into account; one that is no ``Prediction`` says nothing."""
        if not isinstance(result, Prediction):
            return
        value = doubt(result)
        if len(self._new) < self._most or value > self._new[0].doubt:
            self._consider(value, result)
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def _consider(self, value: float, prediction: Prediction) -> None:
        name = _copy_name(Path(prediction.source))
        if name is None:
            return
        if any(
            name == other.name or _is_same(prediction.embedding, other.prediction.embedding)
            for other in self._new
        ):
            self.copies += 1
            return
        self._count += 1
        heapq.heappush(self._new, _Doubtful(value, -self._count, name, prediction))
        if len(self._new) > self._most:
            heapq.heappop(self._new)

    def save(self) -> None:
        """Put what was added into the folder of today. Raises EdgetlError if that fails."""
        new, self._new = self._new, []
        if new:
            with _errors_of(self._folder), _locked(self._folder):
                self._merge(self._folder / date.today().isoformat(), new)
        self._saved = time.monotonic()

    def _merge(self, day: Path, new: list[_Doubtful]) -> None:
        """New copies are written first and old ones removed last: every answer has its photo."""
        day.mkdir(exist_ok=True)
        for leftover in day.glob(".*.part"):  # of a process that was killed here
            leftover.unlink(missing_ok=True)
        rows = {
            row["path"]: row for row in _read(day / ANSWERS_FILE) if (day / row["path"]).is_file()
        }
        sources = {}
        for photo in new:
            row, source = self._row(photo), Path(photo.prediction.source)
            if _copy_name(source) != photo.name:  # removed or changed since it was classified
                continue
            if photo.name in rows:
                self.copies += rows[photo.name].get("original") != row["original"]
            sources[photo.name], rows[photo.name] = source, row
        kept = self._distinct(sorted(rows.values(), key=lambda row: -row["doubt"]), sources)
        names = {row["path"] for row in kept}
        for name in names & sources.keys():
            if not (day / name).exists():
                atomic_write(day / name, partial(shutil.copyfile, sources[name]))
        lines = b"".join(map(json_line, kept))
        atomic_write(day / ANSWERS_FILE, lambda path: path.write_bytes(lines))
        for file in day.iterdir():
            if file.name not in names and _is_copy(file.name):
                file.unlink(missing_ok=True)

    def _distinct(
        self, rows: Sequence[Mapping[str, Any]], new: Collection[str]
    ) -> list[Mapping[str, Any]]:
        """The first of ``rows``, without those in which the model sees an earlier one again."""
        kept: list[tuple[Mapping[str, Any], Embedding | None]] = []
        for row in rows:
            embedding = _embedding_of(row)
            if len(kept) == self._most:
                break
            if any(
                row.get("model") == other.get("model") and _is_same(embedding, known)
                for other, known in kept
            ):
                self.copies += row["path"] in new
            else:
                kept.append((row, embedding))
        return [row for row, _ in kept]

    def _row(self, photo: _Doubtful) -> dict[str, Any]:
        answer = photo.prediction.to_dict()
        # Not as "source" and "label": the list can be read as one of photos, and what the model
        # takes them for must not be taken for their label.
        original, predicted = plain_name(answer.pop("source")), answer.pop("label")
        if (embedding := photo.prediction.embedding) is not None:
            answer["embedding"] = [round(float(value), _EMBEDDING_DIGITS) for value in embedding]
        return {
            "path": photo.name,
            "original": original,
            "model": self._model,
            "doubt": photo.doubt,
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


def _copy_name(photo: Path) -> str | None:
    """What its copy is called, by its bytes; None if it can't be read."""
    try:
        with photo.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None
    return digest[:_DIGITS] + photo.suffix.lower()


def _embedding_of(row: Mapping[str, Any]) -> Embedding | None:
    """As ``_read`` found it; None if there is none, or something else in its place."""
    try:
        found = np.asarray(row["embedding"], np.float32)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return found if found.ndim == 1 else None


def _is_same(first: Embedding | None, second: Embedding | None) -> bool:
    """Whether the model sees no difference between two photos."""
    if first is None or second is None or first.shape != second.shape or not first.size:
        return False
    near = abs(first[0] - second[0]) <= _SAME  # quickly, for nearly all pairs
    return bool(near and np.abs(first - second).max() <= _SAME)


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
