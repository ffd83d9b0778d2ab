"""Files that results are appended to, and that a killed run can be continued in.

A row is either whole in the file or not there: what a kill cut off is removed when the file is opened again. Each row
names the model that gave it, so that no file ever mixes the answers of two.

A file name may hold bytes that are no Unicode. JSON can say so; CSV and Parquet can't, and hold it as ``plain_name``
writes it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from edgetl.errors import ImageError, MissingDependencyError, ResultsError
from edgetl.runtime.inference.predictor import Prediction
from edgetl.runtime.results.records import as_record, as_row, columns, json_line
from edgetl.system.file_lock import try_lock
from edgetl.system.paths import real_path

_FLUSH_SECONDS = 1.0  # the most work that a kill can cost
_PARQUET_ROWS = 10_000  # in memory at a time
_LOOKS_ESCAPED = re.compile(
    r"[\ud800-\udfff]|\\ud[89a-f][0-9a-f]{2}"
)  # a surrogate, or the text of one's escape


class Row(NamedTuple):
    """What is read back of a row.

    end     the position behind it in the file, in bytes
    source  as ``plain_name`` writes it
    """

    end: int
    source: str
    model: str
    failed: bool


class ResultFile(ABC):
    """A file of one model's results, open for more; use it as a context manager.

    path    created if it is not there; one process at a time
    model   identity of the model (``Predictor.model_id``)
    labels  class names in the order of the outputs

    Raises ResultsError if the file holds something else, another model's results, or is being written by another.
    """

    def __init__(self, path: Path, model: str, labels: Sequence[str]) -> None:
        self.path, self.model, self.labels = path, model, labels
        self.failed = 0
        self._done: set[bytes] = set()
        self._file = _open_alone(path)
        self._flushed = time.monotonic()
        try:
            self._start()
        except BaseException:
            self._file.close()
            raise

    def _start(self) -> None:
        """Learn what the file holds, and stand behind its last whole row."""
        begins = self._file.read(len(self._beginning()))
        if begins != self._beginning()[: len(begins)]:
            raise self._foreign(1, "it begins otherwise")
        end = self._take_stock(self._rows(self._file))
        self._file.seek(end)
        rest = self._file.read()
        if not self._is_cut_off(rest):
            raise self._foreign(len(self._done) + 1, "its last line is no row that was cut off")
        if rest:  # else the file keeps the time at which it was written
            self._file.truncate(end)
        self._file.seek(end)
        if end == 0:
            self._file.write(self._header())

    def __contains__(self, source: str) -> bool:
        """Is there a row for ``source`` from before?"""
        return _digest(plain_name(source)) in self._done

    def __len__(self) -> int:
        """Number of rows from before."""
        return len(self._done)

    def append(self, result: Prediction | ImageError) -> None:
        """Add one row."""
        record = as_record(result)
        self.failed += "error" in record
        self._file.write(
            self._encode({"source": record.pop("source"), "model": self.model, **record})
        )
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def complete(self) -> None:
        """Called once all rows are in; a run that ends without it is continued by the next."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.flush()
        if kind is None:
            self.complete()
        self._file.close()

    def _take_stock(self, rows: Iterator[Row]) -> int:
        """Remember ``rows`` → the position behind the last one."""
        end = 0
        for row in rows:
            if row.model != self.model:
                raise ResultsError(
                    f"{self.path} holds results of another model ({row.model}; this one is {self.model}).",
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
        """What every such file begins with."""

    def _is_cut_off(self, tail: bytes) -> bool:
        """Can what stands behind the last whole row be the beginning of one of ours?"""
        return True

    @abstractmethod
    def _encode(self, record: Mapping[str, Any]) -> bytes: ...

    @abstractmethod
    def _rows(self, file: IO[bytes]) -> Iterator[Row]:
        """The whole rows in ``file``. Raises ResultsError for what is no row."""

    def _foreign(self, line: int, reason: str) -> ResultsError:
        what = "not a result of edgetl predict with this model's labels"
        return ResultsError(f"{self.path}, line {line}: {what} ({reason}).", "Name another file.")


class JsonLines(ResultFile):
    """One JSON object a line."""

    def _beginning(self) -> bytes:
        return b'{"source": "'

    def _encode(self, record: Mapping[str, Any]) -> bytes:
        return (json_line(record) + "\n").encode()

    def _is_cut_off(self, tail: bytes) -> bool:
        try:
            record = json.loads(tail)
        except ValueError:  # half a line
            begins = tail[: len(self._beginning())]
            return begins == self._beginning()[: len(begins)]
        return isinstance(record, dict) and record.get("model") == self.model  # all but its newline

    def _rows(self, file: IO[bytes]) -> Iterator[Row]:
        end = 0
        for number, line in enumerate(_whole_lines(file), start=1):
            end += len(line)
            try:
                record = json.loads(line)
                yield Row(
                    end, plain_name(str(record["source"])), str(record["model"]), "error" in record
                )
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise self._foreign(number, repr(error)) from error


class Csv(ResultFile):
    """A table with a header; a column a class."""

    def _header(self) -> bytes:
        return csv_line(columns(self.labels))

    def _beginning(self) -> bytes:
        return self._header()

    def _encode(self, record: Mapping[str, Any]) -> bytes:
        return csv_line(_plain_row(record, self.labels))

    def _rows(self, file: IO[bytes]) -> Iterator[Row]:
        read, end, at_end = 0, 0, False

        def lines() -> Iterator[str]:
            nonlocal read, at_end
            for line in _whole_lines(file):
                read += len(line)
                yield line.decode("utf-8", "backslashreplace")
            at_end = True

        reader = csv.reader(lines(), strict=True)
        try:
            for row in islice(reader, 1, None):
                if len(row) != len(columns(self.labels)):
                    raise self._foreign(reader.line_num, f"{len(row)} columns")
                end = read
                yield Row(end, row[0], row[1], row[2] != "")
        except csv.Error as error:
            if not (at_end and self._is_one_row(file, end)):
                raise self._foreign(reader.line_num, str(error)) from error

    def _is_cut_off(self, tail: bytes) -> bool:
        """A row names its model behind its source; one that is shorter than that may be anything, and little."""
        if self._header().startswith(tail):
            return True
        text = tail.removeprefix(self._header()).decode("utf-8", "backslashreplace")
        fields = next(csv.reader([text]), [])
        return len(fields) < 2 or self.model.startswith(fields[1])

    def _is_one_row(self, file: IO[bytes], start: int) -> bool:
        """Is what begins at ``start``, and ends inside quotes, one row cut off, not many behind a quote that was lost?"""
        file.seek(start)
        return (
            file.read().count(csv_line(["", self.model, ""])[:-1]) <= 1
        )  # each row names its model


class Parquet(JsonLines):
    """A column a class. A Parquet file can't be continued, so rows wait beside it as JSON lines until all are in."""

    def __init__(self, path: Path, model: str, labels: Sequence[str]) -> None:
        self._pyarrow = _import_pyarrow()
        self._table = real_path(path)  # a link goes on leading to the table
        super().__init__(self._table.with_name(self._table.name + ".partial"), model, labels)

    def _start(self) -> None:
        super()._start()
        if not self._table.exists():
            return
        waiting, failed, self._done, self.failed = self._done, self.failed, set(), 0
        try:
            self._take_stock(self._table_rows())
        except ResultsError:
            if not waiting:
                self.path.unlink()
            raise
        if (
            waiting & self._done
        ):  # killed between putting the table in place and removing what went into it
            self._file.truncate(0)
            self._file.seek(0)
            return
        self._done |= waiting
        self.failed += failed

    def complete(self) -> None:
        if self._table.exists() and not self._file.seek(
            0, os.SEEK_END
        ):  # nothing waits: it is as old as its last row
            self.path.unlink()
            return
        temporary = self._table.with_name(self._table.name + ".temporary")
        schema = self._schema()
        with (
            temporary.open("wb") as file,
            self._pyarrow.parquet.ParquetWriter(file, schema) as writer,
        ):
            for batch in self._batches() if self._table.exists() else ():
                writer.write_batch(batch)
            for rows in self._chunks():
                filled = zip(zip(*rows, strict=True), schema.types, strict=True)
                arrays = [self._pyarrow.array(column, kind) for column, kind in filled]
                writer.write_batch(self._pyarrow.record_batch(arrays, schema=schema))
        temporary.replace(self._table)
        self.path.unlink()

    def _chunks(self) -> Iterator[list[list[Any]]]:
        """The waiting rows, some at a time."""
        self._file.seek(0)
        chunk: list[list[Any]] = []
        for line in self._file:
            chunk.append(_plain_row(json.loads(line), self.labels))
            if len(chunk) == _PARQUET_ROWS:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _schema(self) -> Any:
        text, number = self._pyarrow.string(), self._pyarrow.float32()
        types = [text, text, text, text, number, *(number for _ in self.labels)]
        return self._pyarrow.schema(list(zip(columns(self.labels), types, strict=True)))

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The table. pyarrow is given open files: some names it would take for addresses, others it can't encode."""
        with self._table.open("rb") as file, self._pyarrow.parquet.ParquetFile(file) as table:
            yield table

    def _batches(self) -> Iterator[Any]:
        with self._opened() as table:
            yield from table.iter_batches(_PARQUET_ROWS)

    def _table_rows(self) -> Iterator[Row]:
        try:
            with self._opened() as file:
                if file.schema_arrow.names != columns(self.labels):
                    raise self._foreign(1, "other columns")
                for batch in file.iter_batches(_PARQUET_ROWS, columns=["source", "model", "error"]):
                    for row in batch.to_pylist():
                        yield Row(0, row["source"], row["model"], row["error"] is not None)
        except self._pyarrow.ArrowException as error:
            raise ResultsError(
                f"{self._table} is not a Parquet file ({error}).", "Name another file."
            ) from error


FORMATS: Mapping[str, type[ResultFile]] = {".jsonl": JsonLines, ".csv": Csv, ".parquet": Parquet}


def open_results(path: str | os.PathLike[str], model: str, labels: Sequence[str]) -> ResultFile:
    """The file of results of the kind that ``path`` ends in. Raises ResultsError, MissingDependencyError."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        hint = f"End its name in {', '.join(FORMATS)}; for standard output leave it out (--json: one JSON object a line)."
        raise ResultsError(f"{path}: results are not written as {path.suffix!r}.", hint)
    return FORMATS[path.suffix.lower()](path, model, labels)


def _open_alone(path: Path) -> IO[bytes]:
    try:
        file = path.open("r+b" if path.exists() else "x+b")
    except OSError as error:
        raise ResultsError(
            f"{path} can't be written ({error.strerror or error}).", "Name another file."
        ) from error
    if try_lock(file.fileno()) is False:
        file.close()
        raise ResultsError(
            f"{path} is being written by another process.", "Wait for it, or name another file."
        )
    return file


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    return (line for line in file if line.endswith(b"\n"))


def csv_line(values: Sequence[Any]) -> bytes:
    """One line of a CSV file, as UTF-8, whatever stands in a name."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(
        values
    )  # up to Python 3.12, only what ends a line is quoted
    return (text.getvalue().removesuffix("\r\n") + "\n").encode("utf-8", "backslashreplace")


def _plain_row(record: Mapping[str, Any], labels: Sequence[str]) -> list[Any]:
    """``as_row`` in plain Unicode where a file's name may stand."""
    source, *rest = as_row(record, labels)
    return [plain_name(source), *rest]


def plain_name(name: str) -> str:
    """A file's name in plain Unicode, another one for every name; nearly always the name itself.

    A stray byte is written as an escape (0xFF as ``\\udcff``). Where there is one, or where the name holds the text of
    such an escape, every backslash is doubled, so that the two can't be taken for each other.
    """
    if not _LOOKS_ESCAPED.search(name):
        return name
    return name.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()


def _digest(plain: str) -> bytes:
    """Sixteen bytes in place of a path: a hundred thousand of them are kept."""
    return hashlib.blake2b(plain.encode(), digest_size=16).digest()


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "Writing Parquet", "parquet") from error
    return pyarrow
