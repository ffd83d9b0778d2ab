"""One callback reports progress, whatever shows it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from edgetl.system.progress import ProgressCounter, track

Call = tuple[str, int, int]


@pytest.fixture
def calls() -> list[Call]:
    return []


def test_track_reports_an_item_when_the_next_one_is_asked_for(calls: list[Call]) -> None:
    items = track("ab", 2, "Reading", lambda *call: calls.append(call))
    assert next(items) == "a" and calls == [("Reading", 0, 2)]
    assert list(items) == ["b"]
    assert calls == [("Reading", done, 2) for done in range(3)]


def test_a_counter_counts_from_any_thread(calls: list[Call]) -> None:
    counter = ProgressCounter(lambda *call: calls.append(call), "Reading", 100)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(100):
            pool.submit(counter)
    assert calls == [("Reading", done, 100) for done in range(101)]
