"""Signals that end a run: the first one lets it save its state."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgetl.system.stop_signal import StopSignal


@pytest.fixture
def as_in_a_terminal():
    """Ctrl-C is ignored in a job that runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_is_reported_and_the_second_acts_as_usual(as_in_a_terminal):
    said = []
    with StopSignal(lambda: said.append("stopping")) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received and said == ["stopping"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert said == ["stopping"]


def test_an_error_while_reporting_a_signal_is_ignored():
    def gone():
        raise BrokenPipeError

    with StopSignal(gone) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received


@pytest.fixture
def sighup() -> Iterator[Callable[[Any], object]]:
    """Sets the handler of SIGHUP, which nohup makes ignored; restores it at the end."""
    before = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, before)


def test_sighup_may_come_twice(sighup):
    sighup(signal.SIG_DFL)
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert stop.received


def test_sighup_stays_ignored_where_it_was_ignored(sighup):
    sighup(signal.SIG_IGN)  # as nohup does
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.received
