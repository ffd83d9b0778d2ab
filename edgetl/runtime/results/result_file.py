"""A file that results are appended to, and that a later run can continue if this one is killed.

After a kill a row is either whole in the file or missing: a partial row at the end is removed when
the file is opened again. Each row names its model, so that no file mixes the answers of two.

A file name may contain bytes that are not Unicode. JSON can represent them; CSV and Parquet can't,
and contain the name as ``plain_name`` writes it.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from edgetl.errors import ImageError, PredictionError, ResultsError
from edgetl.runtime.inference.prediction import Prediction
from edgetl.runtime.results.records import as_record, columns, plain_name
from edgetl.system.file_lock import try_lock

_FLUSH_SECONDS = 1.0  # the most work that a kill can cost


class Row(NamedTuple):
    """What is read back of a row.

    end     position after it in the file, in bytes
    source  as ``plain_name`` writes it
    """

    end: int
    source: str
    model: str
    failed: bool


class ResultFile(ABC):
    """A file of one model's results, open for appending; use it as a context manager.

    path    created if it does not exist; one process at a time can open it
    model   identifies the model (``Predictor.model_id``)
    labels  class names in the order of the outputs

    ``failed`` counts the rows with an error. Raises ResultsError if the file contains anything
    else, or another model's results, or if another process is writing it.
    """

    def __init__(self, path: Path, model: str, labels: Sequence[str]) -> None:
        self.path, self.model, self.labels = path, model, labels
        self._columns = columns(labels)  # of a table
        self.failed = 0
        self._done: set[bytes] = set()
        try:
            self._file: IO[bytes] = path.open("r+b" if path.exists() else "x+b")
        except OSError as error:
            message = f"{path} can't be written ({error.strerror or error})."
            raise ResultsError(message, "Name another file.") from error
        self._flushed = time.monotonic()
        try:
            if try_lock(self._file.fileno()) is False:
                message = f"{path} is being written by another process."
                raise ResultsError(message, "Wait for it, or name another file.")
            self._read_existing()
        except BaseException:
            self._file.close()
            raise

    def _read_existing(self) -> None:
        """Read the rows that are there, and position the file after the last whole one."""
        begins = self._file.read(len(self._beginning()))
        if begins != self._beginning()[: len(begins)]:
            raise self._not_a_result(1, "it begins differently")
        end = self._remember(self._rows(self._file))
        self._file.seek(end)
        rest = self._file.read()
        if not self._is_cut_off(rest):
            raise self._not_a_result(
                len(self._done) + 1, "its last line is not a row that was cut off"
            )
        if rest:  # otherwise the file keeps its modification time
            self._file.truncate(end)
        self._file.seek(end)
        if end == 0:
            self._file.write(self._header())

    def __contains__(self, source: str) -> bool:
        """Whether ``source`` already had a row when the file was opened."""
        return _digest(plain_name(source)) in self._done

    def __len__(self) -> int:
        """Number of rows that were there when the file was opened."""
        return len(self._done)

    def append(
        self, result: Prediction | ImageError | PredictionError, truth: str | None = None
    ) -> None:
        """Add one row, with the photo's true label where it is known."""
        record = as_record(result)
        self.failed += "error" in record
        known = {} if truth is None else {"truth": truth}
        row = self._encode({"source": record.pop("source"), "model": self.model, **record, **known})
        self._file.write(row)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def complete(self) -> None:
        """Called when all rows are written; a run that ends before can be continued."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.flush()
        if kind is None:
            self.complete()
        self._file.close()

    def _remember(self, rows: Iterable[Row]) -> int:
        """Remember ``rows`` as done; returns the position after the last one."""
        end = 0
        for row in rows:
            if row.model != self.model:
                raise ResultsError(
                    f"{self.path} holds results of another model "
                    f"({row.model}; this one is {self.model}).",
                    "Write to another file, or remove this one.",
                )
            self._done.add(_digest(row.source))
            self.failed += row.failed
            end = row.end
        return end

    def _header(self) -> bytes:
        return b""

    @abstractmethod
    def _beginning(self) -> bytes:
        """The first bytes of every such file."""

    @abstractmethod
    def _is_cut_off(self, tail: bytes) -> bool:
        """Whether the bytes after the last whole row can be the beginning of a row."""

    @abstractmethod
    def _encode(self, record: Mapping[str, Any]) -> bytes: ...

    @abstractmethod
    def _rows(self, file: IO[bytes]) -> Iterator[Row]:
        """The whole rows in ``file``. Raises ResultsError for anything else."""

    def _not_a_result(self, line: int, reason: str) -> ResultsError:
        what = "not a result of edgetl predict with this model's labels"
        return ResultsError(f"{self.path}, line {line}: {what} ({reason}).", "Name another file.")


def whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of ``file`` from its start that have a line end."""
    file.seek(0)
    return (line for line in file if line.endswith(b"\n"))


def _digest(plain: str) -> bytes:
    """Sixteen bytes instead of a path, since there may be hundreds of thousands in memory."""
    return hashlib.blake2b(plain.encode(), digest_size=16).digest()
