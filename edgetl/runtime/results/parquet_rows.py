"""Rows of results as record batches of a Parquet table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgetl.errors import MissingDependencyError
from edgetl.runtime.results.records import as_row

PARTS = "part-*.parquet"
"""What the files of a table that is a folder are called, as ``edgetl predict --ray`` writes it."""
RUN_MANIFEST = "_manifest.json"
"""The file beside them that says whose they are. Readers of tables skip names like this."""


class ParquetRows:
    """The schema of a table of results, and its rows.

    columns  their names, of ``records.columns``

    Raises MissingDependencyError without pyarrow.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._pyarrow = import_pyarrow()
        self._columns = columns
        text, number = self._pyarrow.string(), self._pyarrow.float32()
        known = {
            **dict.fromkeys(("confidence", "ood_score"), number),
            **dict.fromkeys(("sure", "unknown"), self._pyarrow.bool_()),
            "embedding": self._pyarrow.list_(self._pyarrow.float16()),
        }
        self._types = [
            number if name.startswith("p(") else known.get(name, text) for name in columns
        ]
        self.schema = self._pyarrow.schema(list(zip(columns, self._types, strict=True)))

    def batch(self, records: Sequence[Mapping[str, Any]]) -> Any:
        """A record batch of one or more of ``records.as_file_record``."""
        rows = [as_row(record, self._columns) for record in records]
        arrays = map(self._pyarrow.array, zip(*rows, strict=True), self._types)
        return self._pyarrow.record_batch(list(arrays), schema=self.schema)


def import_pyarrow() -> Any:
    """pyarrow with its ``parquet``. Raises MissingDependencyError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "Writing Parquet", "parquet") from error
    return pyarrow
