"""Results as JSON lines: one object for each photo."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from edgetl.runtime.results.records import json_line, plain_name
from edgetl.runtime.results.result_file import ResultFile, Row, whole_lines


class JsonLinesFile(ResultFile):
    """One JSON object per line."""

    def _beginning(self) -> bytes:
        return b'{"source": "'

    def _encode(self, record: Mapping[str, Any]) -> bytes:
        return json_line(record)

    def _is_cut_off(self, tail: bytes) -> bool:
        try:
            record = json.loads(tail)
        except ValueError:  # a part of a line
            begins = tail[: len(self._beginning())]
            return begins == self._beginning()[: len(begins)]
        # A whole row without its line end.
        return isinstance(record, dict) and record.get("model") == self.model

    def _rows(self, file: IO[bytes]) -> Iterator[Row]:
        end = 0
        for number, line in enumerate(whole_lines(file), start=1):
            end += len(line)
            try:
                record = json.loads(line)
                source, model = plain_name(str(record["source"])), str(record["model"])
                yield Row(end, source, model, record.get("error"))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise self._not_a_result(number, repr(error)) from error
