"""One part of a result: a Parquet table with the columns of ``edgetl predict --out``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple

from edgetl.cluster.cluster_job import PartSummary
from edgetl.errors import ResultsError
from edgetl.runtime.images.decode import may_pass
from edgetl.runtime.results.parquet_rows import ParquetRows, import_pyarrow

_ROWS_IN_MEMORY = 1_000  # as Python's objects


class SourceRow(NamedTuple):
    """A photo in a part.

    source   as ``plain_name`` writes it
    error    why there is no answer, or None
    """

    source: str
    error: str | None

    @property
    def stands(self) -> bool:
        """Whether it need not be tried again."""
        return self.error is None or not may_pass(self.error)


class PartFile:
    """The rows of a part that was written before.

    name     for messages
    content  the file's

    Raises ResultsError for anything but a table with these columns; MissingDependencyError.
    """

    def __init__(self, name: str, content: bytes, columns: Sequence[str]) -> None:
        self._pyarrow = import_pyarrow()
        try:
            self._table = self._pyarrow.parquet.read_table(BytesIO(content))
        except self._pyarrow.ArrowException as error:
            raise _not_a_part(name, str(error)) from error
        if self._table.column_names != list(columns):
            raise _not_a_part(name, "it has other columns")
        sources, errors = (self._table[column].to_pylist() for column in ("source", "error"))
        self.rows = tuple(map(SourceRow, sources, errors))

    def summary(self, part: str, *, is_new: bool) -> PartSummary:
        """What is in it.

        is_new  this run wrote it
        """
        photos, failed = len(self.rows), sum(row.error is not None for row in self.rows)
        if not is_new:
            return PartSummary(part, photos, failed)
        labels, truths = (self._table[column].to_pylist() for column in ("label", "truth"))
        known = [
            (label, truth)
            for label, truth in zip(labels, truths, strict=True)
            if label is not None and truth is not None
        ]
        return PartSummary(
            part,
            photos,
            failed,
            new=photos,
            classified=photos - failed,
            labelled=len(known),
            correct=sum(label == truth for label, truth in known),
        )

    def without(self, sources: Collection[str]) -> Any:
        """Its table without the rows of ``sources``."""
        stays = [row.source not in sources for row in self.rows]
        return self._table.filter(self._pyarrow.array(stays, self._pyarrow.bool_()))


def source_rows(name: str, content: bytes) -> list[SourceRow]:
    """The photos of a part, whatever its other columns. Raises ResultsError."""
    pyarrow = import_pyarrow()
    try:
        table = pyarrow.parquet.read_table(BytesIO(content), columns=["source", "error"])
        return list(map(SourceRow, table["source"].to_pylist(), table["error"].to_pylist()))
    except (pyarrow.ArrowException, KeyError) as error:
        raise _not_a_part(name, str(error)) from error


def part_bytes(
    columns: Sequence[str], kept: Any | None, records: Iterable[Mapping[str, Any]]
) -> bytes:
    """A part's content: the table ``kept``, and records of ``as_file_record`` after it."""
    table_rows = ParquetRows(columns)
    file = BytesIO()
    with import_pyarrow().parquet.ParquetWriter(file, table_rows.schema) as writer:
        if kept is not None and kept.num_rows:
            writer.write_table(kept.cast(table_rows.schema))
        left = iter(records)
        while some := list(islice(left, _ROWS_IN_MEMORY)):
            writer.write_batch(table_rows.batch(some))
    return file.getvalue()


def _not_a_part(name: str, reason: str) -> ResultsError:
    return ResultsError(
        f"{name} is not a part of this model's answers ({reason}).",
        "Name another place with --out, or remove it.",
    )
