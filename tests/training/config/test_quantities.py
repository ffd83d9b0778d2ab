"""Times and sizes with their units."""

from __future__ import annotations

import math

import pytest

from edgetl.errors import TrainingError
from edgetl.training.config.quantities import parse_bytes, parse_milliseconds


@pytest.mark.parametrize(
    ("text", "expected"), [("15ms", 15), ("0.2s", 200), (" 15 ms ", 15), (".5ms", 0.5)]
)
def test_times(text: str, expected: float) -> None:
    assert parse_milliseconds("--budget", text) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "expected"), [("5MB", 5e6), ("800kB", 8e5), ("1.5 GB", 1.5e9)])
def test_sizes(text: str, expected: float) -> None:
    assert parse_bytes("--max-size", text) == pytest.approx(expected)


def test_nothing_is_no_limit() -> None:
    assert parse_milliseconds("--budget", "") == parse_bytes("--max-size", "") == math.inf


@pytest.mark.parametrize("text", ["15", "ms", "15MB", "0ms", "-3ms", "nanms", "1e3ms", "٣ms"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(TrainingError, match=r"--budget is .*; it takes a time such as 15ms"):
        parse_milliseconds("--budget", text)


@pytest.mark.parametrize("text", ["5", "5Mb", "5ms", "MB", "0MB"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(TrainingError, match=r"--max-size is .*; it takes a size such as 5MB"):
        parse_bytes("--max-size", text)
