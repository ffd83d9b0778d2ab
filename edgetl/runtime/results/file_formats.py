"""The formats of results files, by suffix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgetl.errors import ResultsError
from edgetl.runtime.results.csv_file import CsvFile
from edgetl.runtime.results.json_lines_file import JsonLinesFile
from edgetl.runtime.results.parquet_file import ParquetFile
from edgetl.runtime.results.result_file import ResultFile

RESULT_FORMATS: Mapping[str, type[ResultFile]] = {
    ".jsonl": JsonLinesFile,
    ".csv": CsvFile,
    ".parquet": ParquetFile,
}


def open_results(
    path: str | os.PathLike[str],
    model: str,
    labels: Sequence[str],
    *,
    sure: bool = False,
    unknown: bool = False,
    embeddings: bool = False,
) -> ResultFile:
    """Open the results file ``path`` in the format of its suffix; see ``ResultFile``.

    Raises ResultsError, MissingDependencyError.
    """
    path = Path(path)
    if path.suffix.lower() not in RESULT_FORMATS:
        raise ResultsError(
            f"{path}: results can't be written as {path.suffix!r}.",
            f"End its name in {', '.join(RESULT_FORMATS)}; for standard output leave it out "
            "(--json: one JSON object per line).",
        )
    if embeddings and path.suffix.lower() == ".csv":
        raise ResultsError(
            f"{path}: a CSV file has no place for embeddings.",
            "End its name in .parquet or .jsonl.",
        )
    kind = RESULT_FORMATS[path.suffix.lower()]
    return kind(path, model, labels, sure=sure, unknown=unknown, embeddings=embeddings)
