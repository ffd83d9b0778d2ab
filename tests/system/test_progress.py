"""One callback reports progress, whatever shows it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from edgetl.system.progress import ProgressCounter, progress_callback, track

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


def test_true_is_a_bar_for_each_step_that_vanishes(capsys):
    progress = progress_callback(True)
    progress("Loading", 0, 0)
    for done in range(4):
        progress("Reading", done, 3)
    del progress
    shown = capsys.readouterr().err
    assert "Loading" in shown and "Reading" in shown and "\n" not in shown
    assert not shown.split("\r")[-1].strip()


def test_without_tqdm_true_is_a_line(capsys, monkeypatch):
    monkeypatch.setattr("edgetl.system.progress.find_spec", lambda name: None)
    progress = progress_callback(True)
    progress("Reading", 1, 3)
    assert "Reading  1/3" in capsys.readouterr().err
    progress("Reading", 3, 3)
    assert capsys.readouterr().err.endswith("\r\x1b[K")  # nothing is left of it


def test_a_function_is_called_and_nothing_is_shown_by_default(capsys):
    steps = []

    def show(*step):
        steps.append(step)

    assert progress_callback(show) is show
    for nothing in (None, False):
        progress_callback(nothing)("Reading", 1, 2)
    assert capsys.readouterr().err == "" and not steps
