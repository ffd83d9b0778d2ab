"""One line shows progress where stderr is a terminal."""

from __future__ import annotations

import re

import pytest

from edgetl.cli.terminal import progress_bar
from edgetl.cli.terminal.progress_bar import show_progress
from edgetl.system.progress import no_progress
from edgetl.system.progress_line import clock


def test_without_a_terminal_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as progress:
        assert progress is no_progress
        progress("Reading", 1, 2)
    assert capsys.readouterr().err == ""


def test_a_line_shows_steps_counts_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 0.0, 1.0, 1.01, 5.0, 5.01, 9.0])
    # Private: the tests have no terminal, and time would depend on the machine.
    monkeypatch.setattr(progress_bar, "_is_terminal", lambda: True)
    monkeypatch.setattr("edgetl.system.progress_line.time.monotonic", lambda: next(now))
    with show_progress() as progress:
        progress("Loading", 0, 0)
        progress("Reading", 10, 2000)
        progress("Reading", 11, 2000)  # too soon to be drawn
        progress("Reading", 50, 2000)
        progress("Reading", 2000, 2000)  # the last one always is
    lines = re.findall(r"\r([^\r\x1b]+)\x1b\[K", capsys.readouterr().err)
    assert lines == [
        "Loading …  0:00",
        "Reading  10/2,000",
        "Reading  50/2,000  10/s  3:15 left",
        "Reading  2,000/2,000  496/s  0:00 left",
    ]


def test_a_clock_shows_hours_only_where_there_are_some() -> None:
    assert [clock(seconds) for seconds in (5.4, 65, 7205)] == ["0:05", "1:05", "2:00:05"]
