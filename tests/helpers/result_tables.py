"""Results of ``edgetl predict`` as rows, to compare what several runs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def rows_of(place: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file, or of a folder of parts, sorted by source."""
    return sorted(pq.read_table(place).to_pylist(), key=lambda row: str(row["source"]))


def manifest_of(place: Path) -> dict[str, Any]:
    """The manifest of a folder of parts."""
    found: dict[str, Any] = json.loads((place / "_manifest.json").read_text("utf-8"))
    return found
