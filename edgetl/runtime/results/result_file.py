"""A file that results are appended to, and that a later run can continue if this one is killed.

After a kill a row is either whole in the file or missing: a partial row at the end is removed when
the file is opened again. Each row names its model, so that no file mixes the answers of two.

A photo whose error may pass, such as "permission denied", counts as not done. When it is tried
again, its new row is appended, and the old one is removed when the file is complete.

A file name may contain bytes that are not Unicode. JSON can represent them; CSV and Parquet can't,
and contain the name as ``plain_name`` writes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Self, TypeAlias

from edgetl.errors import ResultsError
from edgetl.runtime.images.decode import may_pass
from edgetl.runtime.inference.prediction import Result
from edgetl.runtime.results.records import as_file_record, columns, plain_name
from edgetl.system.atomic_write import atomic_write
from edgetl.system.file_lock import try_lock
from edgetl.system.paths import real_path

_FLUSH_SECONDS = 1.0  # the most work that a kill can cost
_BLOCK = 1 << 20  # bytes
_Span: TypeAlias = "tuple[int, int]"  # where a row begins and ends in the file


class Row(NamedTuple):
    """What is read back of a row.

    end     position after it in the file, in bytes; 0 for a row of a table
    source  as ``plain_name`` writes it
    error   why there is no label, or None
    """

    end: int
    source: str
    model: str
    error: str | None


class ResultFile(ABC):
    """A file of one model's results, open for appending; use it as a context manager.

    path        created if it does not exist; one process at a time can open it
    model       identifies the model (``Predictor.model_id``)
    labels      class names in the order of the outputs
    sure        whether the model tells sure answers from others: tables have a column for it then
    unknown     whether the model has a score, likewise
    embeddings  whether rows have the photo's embedding, too

    ``failed`` counts the rows with an error. Raises ResultsError if the file contains anything
    else, or another model's results, or if another process is writing it.
    """

    def __init__(
        self,
        path: Path,
        model: str,
        labels: Sequence[str],
        *,
        sure: bool = False,
        unknown: bool = False,
        embeddings: bool = False,
    ) -> None:
        self.path = path = self._rows_path(path)
        self.model, self.labels, self._embeddings = model, labels, embeddings
        # Of a table.
        self._columns = columns(labels, sure=sure, unknown=unknown, embeddings=embeddings)
        self.failed = self._count = 0
        self._done: set[bytes] = set()
        self._may_pass: dict[bytes, _Span] = {}
        self._superseded: list[_Span] = []
        try:
            self._file: IO[bytes] = path.open("r+b" if path.exists() else "x+b")
        except OSError as error:
            message = f"{path} can't be written ({error.strerror or error})."
            raise ResultsError(message, "Name another file.") from error
        self._flushed = time.monotonic()
        try:
            # Another process may have completed it, and so replaced or removed it, before the lock
            # was taken.
            if try_lock(self._file.fileno()) is False or not _is_at(path, self._file):
                message = f"{path} is being written by another process."
                raise ResultsError(message, "Wait for it, or name another file.")
            self._read_existing()
            self._count = len(self._done)
        except BaseException:
            self._file.close()
            raise

    def _rows_path(self, path: Path) -> Path:
        """The file that rows are appended to, of the one that was named."""
        return path

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
        """Whether ``source`` had a row when the file was opened, and need not be tried again."""
        digest = source_digest(plain_name(source))
        return digest in self._done and digest not in self._may_pass

    def __len__(self) -> int:
        """Number of photos with a row."""
        return self._count

    def append(
        self, result: Result, truth: str | None = None, unknown_as: str | None = None
    ) -> None:
        """Add one row, with the photo's true label where it is known.

        ``unknown_as`` is the label of an unknown photo; None: the nearest of the model's.

        It takes the place of one that ``__contains__`` did not count.
        """
        record = as_file_record(
            result, self.model, truth, unknown_as=unknown_as, embeddings=self._embeddings
        )
        if not self._supersede(source_digest(plain_name(record["source"]))):
            self._count += 1
        self.failed += "error" in record
        self._file.write(self._encode(record))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def complete(self) -> None:
        """Called when all rows are written; a run that ends before can be continued."""
        if self._superseded:
            atomic_write(real_path(self.path), self._copy_without_superseded)

    def _copy_without_superseded(self, target: Path) -> None:
        shutil.copymode(self.path, target)
        with target.open("wb") as file:
            self._file.seek(0)
            for start, end in sorted(self._superseded):
                while size := min(start - self._file.tell(), _BLOCK):
                    file.write(self._file.read(size))
                self._file.seek(end)
            shutil.copyfileobj(self._file, file)
        if os.name == "nt":  # where an open file can't be replaced
            self._file.close()

    def _supersede(self, digest: bytes) -> bool:
        """Whether that photo has a row whose error may pass; a new one takes its place."""
        span = self._may_pass.pop(digest, None)
        if span is None:
            return False
        self._superseded.append(span)
        self.failed -= 1
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            self._file.flush()
            if kind is None:
                self.complete()

    def _remember(self, rows: Iterable[Row]) -> int:
        """Remember ``rows`` as done; returns the position after the last one."""
        start, end = len(self._header()), 0
        for row in rows:
            if row.model != self.model:
                raise ResultsError(
                    f"{self.path} holds results of another model "
                    f"({row.model}; this one is {self.model}).",
                    "Write to another file, or remove this one.",
                )
            digest = source_digest(row.source)
            self._supersede(digest)  # of a run that was killed after it had tried a photo again
            self._done.add(digest)
            if row.error is not None:
                self.failed += 1
                if may_pass(row.error):
                    self._may_pass[digest] = (start, row.end)
            start = end = row.end
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


def _is_at(path: Path, file: IO[bytes]) -> bool:
    """Whether ``file`` is what ``path`` leads to now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def source_digest(plain: str) -> bytes:
    """Sixteen bytes instead of a path, since there may be hundreds of thousands in memory."""
    return hashlib.blake2b(plain.encode(), digest_size=16).digest()
