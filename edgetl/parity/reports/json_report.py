"""The report as JSON, with every figure of the result."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgetl.parity.results import AgainstResult, CheckResult

_SCHEMA = 1


def as_json(result: CheckResult | AgainstResult) -> str:
    """One JSON object. Figures that are infinite or NaN are null, with the reason beside them."""
    extra: dict[str, Any] = {"schema": _SCHEMA, "passed": result.passed}
    if isinstance(result, AgainstResult):
        extra["agreement"] = result.agreement
        extra["accuracy_drop"] = result.accuracy.drop if result.accuracy else None
    values = _json_values({**extra, **asdict(result)})
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _json_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_values(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
