"""Numbers with a unit, as options take them: 15ms, 5MB."""

from __future__ import annotations

import math
import re

from edgetl.errors import TrainingError

_SECONDS = {"ms": 1e-3, "s": 1.0}
_BYTES = {"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_NUMBER_AND_UNIT = re.compile(r"(\d+\.?\d*|\.\d+) ?([a-zA-Z]+)", re.ASCII)


def parse_milliseconds(flag: str, text: str) -> float:
    """``15ms`` or ``0.2s`` → milliseconds; "" → infinity. Raises TrainingError, naming ``flag``."""
    return 1000 * _parse(flag, text, _SECONDS, "a time such as 15ms or 0.2s")


def parse_bytes(flag: str, text: str) -> float:
    """``5MB`` → bytes (10 ** 6 each); "" → infinity. Raises TrainingError, naming ``flag``."""
    return _parse(flag, text, _BYTES, "a size such as 5MB or 800kB")


def _parse(flag: str, text: str, units: dict[str, float], expected: str) -> float:
    if not text:
        return math.inf
    found = _NUMBER_AND_UNIT.fullmatch(text.strip())
    number = float(found[1]) * units.get(found[2], math.nan) if found else math.nan
    if not 0 < number < math.inf:
        raise TrainingError(f"{flag} is {text!r}; it takes {expected}.")
    return number
