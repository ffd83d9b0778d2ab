"""Results as a Parquet table, collected as JSON lines until it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from edgetl.errors import MissingDependencyError, ResultsError
from edgetl.runtime.results.json_lines_file import JsonLinesFile
from edgetl.runtime.results.records import as_row, columns
from edgetl.runtime.results.result_file import Row
from edgetl.system.paths import real_path

_ROWS_IN_MEMORY = 10_000


class ParquetFile(JsonLinesFile):
    """A table with a column for each class.

    A Parquet file can't be appended to, so new rows are kept beside it, as JSON lines in a
    ``.partial`` file, until all of them are there.
    """

    def __init__(self, path: Path, model: str, labels: Sequence[str]) -> None:
        self._pyarrow = _import_pyarrow()
        self._table = real_path(path)  # a link keeps leading to the table
        super().__init__(self._table.with_name(self._table.name + ".partial"), model, labels)

    def _read_existing(self) -> None:
        super()._read_existing()
        if not self._table.exists():
            return
        new, new_failed, self._done, self.failed = self._done, self.failed, set(), 0
        try:
            self._remember(self._table_rows())
        except ResultsError:
            if not new:
                self.path.unlink()
            raise
        if new & self._done:  # killed between replacing the table and removing the new rows
            self._file.truncate(0)
            self._file.seek(0)
            return
        self._done |= new
        self.failed += new_failed

    def complete(self) -> None:
        # Without new rows the table keeps its modification time.
        if self._table.exists() and not self._file.seek(0, os.SEEK_END):
            self.path.unlink()
            return
        temporary = self._table.with_name(self._table.name + ".temporary")
        text, number = self._pyarrow.string(), self._pyarrow.float32()
        types = [
            number if name == "confidence" or name.startswith("p(") else text
            for name in self._columns
        ]
        schema = self._pyarrow.schema(list(zip(self._columns, types, strict=True)))
        with (
            temporary.open("wb") as file,
            self._pyarrow.parquet.ParquetWriter(file, schema) as writer,
        ):
            if self._table.exists():
                with self._open_table() as table:
                    for batch in table.iter_batches(_ROWS_IN_MEMORY):
                        writer.write_batch(batch)
            self._file.seek(0)
            while lines := list(islice(self._file, _ROWS_IN_MEMORY)):
                rows = [as_row(json.loads(line), self._columns) for line in lines]
                arrays = map(self._pyarrow.array, zip(*rows, strict=True), types)
                writer.write_batch(self._pyarrow.record_batch(list(arrays), schema=schema))
        temporary.replace(self._table)
        self.path.unlink()

    @contextmanager
    def _open_table(self) -> Iterator[Any]:
        # pyarrow is given an open file: it takes some names for addresses, and can't encode others.
        with self._table.open("rb") as file, self._pyarrow.parquet.ParquetFile(file) as table:
            yield table

    def _table_rows(self) -> Iterator[Row]:
        try:
            with self._open_table() as table:
                older = columns(self.labels, truth=False)
                if table.schema_arrow.names == older:
                    self._columns = older
                elif table.schema_arrow.names != self._columns:
                    raise self._not_a_result(1, "other columns")
                names = ["source", "model", "error"]
                for batch in table.iter_batches(_ROWS_IN_MEMORY, columns=names):
                    for row in batch.to_pylist():
                        yield Row(0, row["source"], row["model"], row["error"] is not None)
        except self._pyarrow.ArrowException as error:
            message = f"{self._table} is not a Parquet file ({error})."
            raise ResultsError(message, "Name another file.") from error


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "Writing Parquet", "parquet") from error
    return pyarrow
