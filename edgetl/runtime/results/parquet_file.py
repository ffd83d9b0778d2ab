"""Results as a Parquet table, collected as JSON lines until it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from edgetl.errors import ResultsError
from edgetl.runtime.results.json_lines_file import JsonLinesFile
from edgetl.runtime.results.parquet_rows import ParquetRows, import_pyarrow
from edgetl.runtime.results.records import columns
from edgetl.runtime.results.result_file import Row, source_digest, whole_lines
from edgetl.system.atomic_write import atomic_write
from edgetl.system.paths import real_path

_ROWS_IN_MEMORY = 10_000


class ParquetFile(JsonLinesFile):
    """A table with a column for each class.

    A Parquet file can't be appended to, so new rows are kept beside it, as JSON lines in a
    ``.partial`` file, until all of them are there.
    """

    def _rows_path(self, path: Path) -> Path:
        self._pyarrow = import_pyarrow()
        self._table = real_path(path)  # a link keeps leading to the table
        self._table_may_pass: frozenset[bytes] = frozenset()  # photos whose error there may pass
        return self._table.with_name(self._table.name + ".partial")

    def _read_existing(self) -> None:
        super()._read_existing()
        if not self._table.exists():
            return
        new, new_failed, new_may_pass = self._done, self.failed, self._may_pass
        self._done, self.failed, self._may_pass = set(), 0, {}
        try:
            self._remember(self._table_rows())
        except ResultsError:
            if not new:
                self.path.unlink()
            raise
        self._table_may_pass = frozenset(self._may_pass)
        if new & self._done - self._table_may_pass:
            # Killed between replacing the table and removing the new rows.
            self._superseded = []
            self._file.truncate(0)
            self._file.seek(0)
            return
        for digest in new:
            self._supersede(digest)
        self._done |= new
        self.failed += new_failed
        self._may_pass |= new_may_pass

    def complete(self) -> None:
        # Without new rows the table keeps its modification time.
        if not (self._table.exists() and not self._file.seek(0, os.SEEK_END)):
            atomic_write(self._table, self._write_table)
        self.path.unlink()

    def _write_table(self, path: Path) -> None:
        """Write the rows of the table, without those that have a new row, and then the new ones."""
        table_rows = ParquetRows(self._columns)
        with (
            path.open("wb") as file,
            self._pyarrow.parquet.ParquetWriter(file, table_rows.schema) as writer,
        ):
            if self._table.exists():
                replaced = self._replaced()
                with self._open_table() as table:
                    for batch in table.iter_batches(_ROWS_IN_MEMORY):
                        stands = [name not in replaced for name in batch["source"].to_pylist()]
                        writer.write_batch(batch.filter(self._pyarrow.array(stands)))
            lines = self._standing_lines()
            while some := list(islice(lines, _ROWS_IN_MEMORY)):
                writer.write_batch(table_rows.batch([json.loads(line) for line in some]))

    def _replaced(self) -> frozenset[str]:
        """Sources of the table's rows in whose place there is a new one."""
        if not self._table_may_pass:
            return frozenset()
        sources = (row.source for row in self._rows(self._file))
        return frozenset(name for name in sources if source_digest(name) in self._table_may_pass)

    def _standing_lines(self) -> Iterator[bytes]:
        """The new rows, without those in whose place there is a newer one."""
        start, superseded = 0, frozenset(self._superseded)
        for line in whole_lines(self._file):
            if (start, start + len(line)) not in superseded:
                yield line
            start += len(line)

    @contextmanager
    def _open_table(self) -> Iterator[Any]:
        # pyarrow is given an open file: it takes some names for addresses, and can't encode others.
        with self._table.open("rb") as file, self._pyarrow.parquet.ParquetFile(file) as table:
            yield table

    def _table_rows(self) -> Iterator[Row]:
        try:
            with self._open_table() as table:
                older = columns(self.labels, truth=False)
                if table.schema_arrow.names == older and not self._embeddings:
                    self._columns = older
                elif table.schema_arrow.names != self._columns:
                    raise self._not_a_result(1, "other columns, or --embeddings given only once")
                names = ["source", "model", "error"]
                for batch in table.iter_batches(_ROWS_IN_MEMORY, columns=names):
                    for row in batch.to_pylist():
                        yield Row(0, row["source"], row["model"], row["error"])
        except self._pyarrow.ArrowException as error:
            message = f"{self._table} is not a Parquet file ({error})."
            raise ResultsError(message, "Name another file.") from error
