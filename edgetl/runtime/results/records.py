"""Predictions as rows that other programs read: JSON objects, and the columns of a table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgetl.errors import ImageError, PredictionError
from edgetl.runtime.inference.prediction import Prediction, Result

# A surrogate (how Python holds a byte of a file name that is not Unicode), or a surrogate's escape.
_LOOKS_ESCAPED = re.compile(r"[\ud800-\udfff]|\\ud[89a-f][0-9a-f]{2}")


def as_record(
    result: Result,
    *,
    top: int | None = None,
    level: float | None = None,
    unknown_as: str | None = None,
) -> dict[str, Any]:
    """One result as JSON values: ``Prediction.to_dict``, or the keys source and error.

    top, level  as ``Prediction.to_dict`` takes them
    unknown_as  the label of unknown photos; None: the nearest of the model's
    """
    if isinstance(result, PredictionError):
        return {"source": result.source, "error": result.message}  # names the model as well
    if isinstance(result, ImageError):
        return {"source": result.source, "error": result.reason}
    record = result.to_dict(top, level=level)
    if unknown_as is not None and result.is_unknown:
        record["label"] = unknown_as
    return record


def as_file_record(
    result: Result, model: str, truth: str | None, *, unknown_as: str | None, embeddings: bool
) -> dict[str, Any]:
    """One result as a row of a file: ``as_record`` with its model and what else is known.

    model       ``Predictor.model_id``
    truth       the photo's true label, where it is known
    embeddings  with the photo's embedding
    """
    record = as_record(result, unknown_as=unknown_as)
    known: dict[str, Any] = {} if truth is None else {"truth": truth}
    if embeddings and isinstance(result, Prediction):
        known["embedding"] = embedding_values(result)
    return {"source": record.pop("source"), "model": model, **record, **known}


def json_line(record: Mapping[str, Any]) -> bytes:
    """``record`` as one line of UTF-8; a file name that is not Unicode is written as escapes."""
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(record) + "\n").encode()


def csv_line(values: Sequence[Any]) -> bytes:
    """One line of a CSV file as UTF-8, whatever a name contains."""
    text = io.StringIO()
    # Up to Python 3.12 a line end is quoted only if it is in lineterminator, so it has both kinds.
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return (text.getvalue().removesuffix("\r\n") + "\n").encode("utf-8", "backslashreplace")


def embedding_values(prediction: Prediction) -> list[float] | None:
    """Its embedding, rounded to half precision, with no more digits than that needs."""
    if prediction.embedding is None:
        return None
    return [float(f"{value:.5g}") for value in prediction.embedding.astype(np.float16)]


def columns(
    labels: Sequence[str],
    *,
    truth: bool = True,
    sure: bool = False,
    unknown: bool = False,
    embeddings: bool = False,
) -> list[str]:
    """Names of the columns of a table, with one probability for each label.

    truth       False: as in files of versions that wrote no true labels
    sure        the model tells sure answers from others
    unknown     the model has a score
    embeddings  with each photo's embedding
    """
    names = ["source", "model", "error", "label", "confidence", *(["truth"] if truth else [])]
    names += ["sure"] if sure else []
    names += ["unknown", "ood_score"] if unknown else []
    return [*names, *(f"p({label})" for label in labels), *(["embedding"] if embeddings else [])]


def as_row(record: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """A record of ``as_file_record`` as one value for each column.

    names  what ``columns`` returned

    None for a value that is not there. The source is written as ``plain_name`` writes it.
    """
    cells = {**record, "source": plain_name(record["source"])}
    for label, probability in record.get("probabilities", {}).items():
        cells[f"p({label})"] = probability
    return [cells.get(name) for name in names]


def plain_name(name: str) -> str:
    """A file name as valid Unicode, different for every name; nearly always the name itself.

    A byte that is not Unicode is written as an escape (0xFF as ``\\udcff``). If there is one, or if
    the name contains the text of such an escape, every backslash is doubled to tell them apart.
    """
    if not _LOOKS_ESCAPED.search(name):
        return name
    return name.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()
