"""Results as CSV: a header, then one row for each photo."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import IO, Any

from edgetl.runtime.results.records import as_row, columns, csv_line
from edgetl.runtime.results.result_file import ResultFile, Row, whole_lines


class CsvFile(ResultFile):
    """A table with a header and a column for each class."""

    def _read_existing(self) -> None:
        older = columns(self.labels, truth=False)
        if self._file.read(len(csv_line(older))) == csv_line(older):
            self._columns = older
        self._file.seek(0)
        super()._read_existing()

    def _header(self) -> bytes:
        return csv_line(self._columns)

    def _beginning(self) -> bytes:
        return self._header()

    def _encode(self, record: Mapping[str, Any]) -> bytes:
        return csv_line(as_row(record, self._columns))

    def _rows(self, file: IO[bytes]) -> Iterator[Row]:
        read, end, at_end = 0, 0, False

        def lines() -> Iterator[str]:
            nonlocal read, at_end
            for line in whole_lines(file):
                read += len(line)
                yield line.decode("utf-8", "backslashreplace")
            at_end = True

        reader = csv.reader(lines(), strict=True)
        try:
            for row in islice(reader, 1, None):
                if len(row) != len(self._columns):
                    raise self._not_a_result(reader.line_num, f"{len(row)} columns")
                end = read
                yield Row(end, row[0], row[1], row[2] or None)
        except csv.Error as error:
            if not (at_end and self._is_one_row(file, end)):
                raise self._not_a_result(reader.line_num, str(error)) from error

    def _is_cut_off(self, tail: bytes) -> bool:
        """A row names its model after its source; a tail without a model can be any row's."""
        if self._header().startswith(tail):
            return True
        text = tail.removeprefix(self._header()).decode("utf-8", "backslashreplace")
        fields = next(csv.reader([text]), [])
        return len(fields) < 2 or self.model.startswith(fields[1])

    def _is_one_row(self, file: IO[bytes], start: int) -> bool:
        """Whether the bytes from ``start``, which end inside quotes, are one row that was cut off.

        They could also be many rows after a lost quote; but then several of them name the model.
        """
        file.seek(start)
        return file.read().count(csv_line(["", self.model, ""])[:-1]) <= 1
