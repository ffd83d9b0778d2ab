"""A model's answers for many photos, fresh or as ``edgetl predict --out`` collected them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import DataError, MissingDependencyError
from edgetl.runtime.images.stored_path import StoredPath, is_address
from edgetl.runtime.inference.prediction import Prediction
from edgetl.runtime.results.parquet_rows import PARTS, RUN_MANIFEST
from edgetl.system.remote_store import is_web

_COLLECT = "Collect them again: edgetl predict MODEL PHOTOS --embeddings --out answers.parquet"
_CSV_ANSWERS = b"source,model,error,"  # how a CSV file of ``edgetl predict --out`` begins
_OUT_OF_RANGE = 1e-3  # how far probabilities that were written as text may be from a sum of 1


@dataclass(frozen=True, eq=False)
class PhotoAnswers:
    """Answers for N photos.

    names          [N], the photos' files
    probabilities  float32 [N, classes]
    embedding      float32 [N, dimensions], the graph's output of that name
    ood_score      float32 [N], likewise
    is_unknown     bool [N], whether the model takes the photo for unknown
    failed         photo → why there is no answer for it
    """

    names: tuple[str, ...]
    probabilities: NDArray[np.float32]
    embedding: NDArray[np.float32]
    ood_score: NDArray[np.float32]
    is_unknown: NDArray[np.bool_]
    failed: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each photo, int64 [N]."""
        return np.asarray(self.probabilities.argmax(1))

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Its probability, float32 [N]."""
        return np.asarray(self.probabilities.max(1))


def of_predictions(results: Iterable[Any], names: Sequence[str]) -> PhotoAnswers:
    """What a predictor's ``batch`` gave for the photos ``names``, of a model with embeddings.

    Raises DataError if no photo could be classified.
    """
    found, failed = _Columns(), {}
    for name, result in zip(names, results, strict=True):
        if isinstance(result, Prediction):
            scores = result.embedding, result.ood_score
            found.add(name, result.probabilities, *scores, is_unknown=result.is_unknown)
        else:
            failed[name] = result.reason
    return found.as_answers(failed)


def is_answers_file(path: Path) -> bool:
    """Whether ``path`` is what ``edgetl predict --out`` writes, and no list or folder of photos.

    Raises DataError for a CSV file of answers, which has no embeddings.
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        with path.open("rb") as file:
            if file.read(len(_CSV_ANSWERS)) == _CSV_ANSWERS:
                raise DataError(f"{path}: answers in a CSV file have no embeddings.", _COLLECT)
    read = _reader(path)
    return read is not None and {"source", "model"} <= next(read(path), {}).keys()


@np.errstate(over="ignore", invalid="ignore")  # what is too large is refused as not finite
def read_answers(path: Path, labels: Sequence[str], models: Collection[str]) -> PhotoAnswers:
    """The answers that ``edgetl predict --out --embeddings`` wrote: see ``is_answers_file``.

    labels  of the model, in the order of its outputs
    models  ``Predictor.model_id`` of the models whose answers are taken

    Raises DataError for answers of another model, and for a file that lacks what is needed;
    MissingDependencyError for Parquet without pyarrow.
    """
    found, failed = _Columns(), {}
    read = _reader(path)
    for number, row in enumerate(read(path) if read else (), 1):
        where = f"{path}, row {number}"
        try:
            name, model, error = str(row["source"]), row["model"], row.get("error")
            if model not in models:
                raise DataError(
                    f"{where}: an answer of another model ({model}; the bundle's is "
                    f"{' or '.join(models)}).",
                    "Name the bundle that gave these answers, or classify the photos again.",
                )
            if error is not None:
                failed[name] = str(error)
                continue
            by_label = row.get("probabilities") or {label: row[f"p({label})"] for label in labels}
            probabilities = np.array([by_label[label] for label in labels], np.float32)
            embedding, score = row.get("embedding"), row.get("ood_score")
            if embedding is None or score is None:
                raise DataError(f"{where}: no embedding or no ood_score.", _COLLECT)
            is_unknown = row.get("unknown")
            found.add(name, probabilities, embedding, float(score), is_unknown=is_unknown)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"{where}: not an answer of this model ({error!r})."
            raise DataError(reason, _COLLECT) from error
    return found.as_answers(failed)


class _Columns:
    """Collects answers photo by photo."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, NDArray[Any], NDArray[np.float16], np.float32, bool]] = []

    def add(
        self,
        name: str,
        probabilities: NDArray[np.float32],
        embedding: Any,
        score: Any,
        *,
        is_unknown: Any,
    ) -> None:
        if probabilities.ndim != 1 or not (
            abs(float(probabilities.sum()) - 1) < _OUT_OF_RANGE and (probabilities >= 0).all()
        ):
            raise ValueError("its probabilities do not sum to 1")
        if not isinstance(is_unknown, bool):
            raise ValueError("it does not say whether the photo is unknown")
        # Rounded as those of the held-out photos are.
        rounded, score = np.asarray(embedding, np.float16), np.float32(score)
        if not (np.isfinite(rounded).all() and np.isfinite(score)):
            raise ValueError("its embedding or ood_score is not finite, or very large")
        expected = self._rows[0][2].shape if self._rows else (rounded.size,)
        if rounded.shape != expected:
            raise ValueError(f"its embedding has shape {list(rounded.shape)}")
        self._rows.append((name, probabilities, rounded, score, is_unknown))

    def as_answers(self, failed: Mapping[str, str]) -> PhotoAnswers:
        """Raises DataError if there are none."""
        if not self._rows:
            name, reason = next(iter(failed.items()), ("no photo", "there is none"))
            raise DataError(f"There is no answer to compare; {name}: {reason}.")
        names, probabilities, embedding, scores, unknown = zip(*self._rows, strict=True)
        return PhotoAnswers(
            names,
            np.stack(probabilities),
            np.stack(embedding).astype(np.float32),
            np.array(scores, np.float32),
            np.array(unknown, np.bool_),
            failed,
        )


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):  # the last one may be cut off, or being written
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise DataError(f"{path}, line {number}: not a JSON object.", _COLLECT)
                    yield row
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not JSON ({error}).", _COLLECT) from error


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "Reading Parquet", "parquet") from error
    try:
        with path.open("rb") as file, pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(10_000):
                yield from batch.to_pylist()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    except (pyarrow.ArrowException, ValueError) as error:  # ValueError: a text that is not UTF-8
        raise DataError(f"{path} is not a Parquet file ({error}).", _COLLECT) from error


def _rows_of_parts(folder: Path) -> Iterator[Mapping[str, Any]]:
    for part in _parts(folder):
        yield from _parquet_rows(part)


def _parts(folder: Path) -> list[Path]:
    """The parts of a folder of answers, here or in a store; none of anything else."""
    if not is_address(folder):
        return sorted(folder.glob(PARTS))
    address = os.fspath(folder).rstrip("/")
    # Of a folder of photos, this is sooner known than what all of them are called.
    if is_web(address) or not StoredPath.at(f"{address}/{RUN_MANIFEST}").exists():
        return []
    from edgetl.runtime.images.store import matching_objects

    return [StoredPath.at(name) for name in matching_objects(f"{address}/{PARTS}")]


def _reader(path: Path) -> Callable[[Path], Iterator[Mapping[str, Any]]] | None:
    """What yields the rows of a file, or of a folder of parts; None for anything else."""
    if path.suffix.lower() in _READERS and path.is_file():
        return _READERS[path.suffix.lower()]
    return _rows_of_parts if _parts(path) else None


_READERS = {".parquet": _parquet_rows, ".jsonl": _json_rows}
