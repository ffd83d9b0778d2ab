"""Results as rows that others read: JSON objects, and the columns of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgetl.errors import ImageError
from edgetl.runtime.inference.predictor import Prediction


def as_record(result: Prediction | ImageError) -> dict[str, Any]:
    """One result as JSON values: source, label, confidence, probabilities by label; or source, error."""
    if isinstance(result, ImageError):
        return {"source": result.source, "error": result.reason}
    by_label = dict(zip(result.labels, map(float, result.probabilities), strict=True))
    return {
        "source": result.source,
        "label": result.label,
        "confidence": result.confidence,
        "probabilities": by_label,
    }


def json_line(record: Mapping[str, Any]) -> str:
    """``record`` on one line, in plain Unicode; a file name that is no Unicode is escaped, and reads back as it was."""
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(record)
    return line


def columns(labels: Sequence[str]) -> list[str]:
    """Names of the columns of ``as_row``: one for each probability."""
    return ["source", "model", "error", "label", "confidence", *(f"p({label})" for label in labels)]


def as_row(record: Mapping[str, Any], labels: Sequence[str]) -> list[Any]:
    """What ``as_record`` gave, with its "model", as one value a column; None where there is none."""
    probabilities = record.get("probabilities", {})
    first = [record.get(name) for name in ("source", "model", "error", "label", "confidence")]
    return [*first, *(probabilities.get(label) for label in labels)]
