"""The reports of an evaluation: HTML with mistakes, JSON with every figure, CSV by photo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from edgetl.evaluation.evaluation_result import EvaluationResult
from edgetl.evaluation.report_page import Answers, EvidenceMaps, answer_sections, render
from edgetl.runtime.results.records import csv_line, plain_name

_SCHEMA = 1
EVALUATION_COLUMNS = ("file", "truth", "label", "confidence", "trained_on", "error")


def as_html(result: EvaluationResult) -> str:
    """A whole HTML document. Raises MissingDependencyError without jinja2 or matplotlib."""
    answers = Answers(
        result.labels,
        result.metrics,
        result.classes,
        result.probabilities,
        result.targets,
        result.paths,
        EvidenceMaps(result.evidence, result.card.spec) if result.evidence else None,
    )
    return render(
        Path(__file__).parent / "templates/evaluation.html.jinja",
        photos=len(result.files),
        name=Path(result.model).resolve().name,
        result=result,
        trained_on=[(name, "") for name in result.trained_on or ()],
        **answer_sections(answers, kind="test", seconds=result.seconds, warnings=result.warnings),
    )


def as_json(result: EvaluationResult) -> str:
    """One JSON object."""
    values = {
        "schema": _SCHEMA,
        "model": result.model,
        "precision": result.precision,
        "images": result.images,
        "root": str(result.root),
        "metrics": dict(result.metrics),
        "classes": [asdict(found) for found in result.classes],
        "labels": result.labels,
        "confusion": result.confusion.tolist(),
        "calibration": [asdict(point) for point in result.calibration],
        "statement": [asdict(check) for check in result.statement],
        "mistakes": [photo._asdict() for photo in result.mistakes],
        "failed": dict(result.failed),
        "unlabelled": dict(result.unlabelled),
        "trained_on": result.trained_on,
        "seconds": result.seconds,
        "machine": dict(result.machine),
    }
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(result: EvaluationResult) -> str:
    """One row for each photo that has a label: the most confident mistakes first, errors last."""
    return b"".join(map(csv_line, (EVALUATION_COLUMNS, *_rows(result)))).decode()


def _rows(result: EvaluationResult) -> Iterator[tuple[object, ...]]:
    trained = None if result.trained_on is None else frozenset(result.trained_on)
    for photo in result.photos:
        known = "" if trained is None else "yes" if photo.file in trained else "no"
        name, *answer, confidence = photo
        yield (plain_name(name), *answer, f"{confidence:.6f}", known, "")
    for name, reason in result.failed.items():
        yield (plain_name(name), "", "", "", "", reason)
