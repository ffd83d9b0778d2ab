"""Signals that end a run: the first is told of and waits for the state to be saved."""

from __future__ import annotations

import signal

import pytest

from edgetl.system.stop_signal import StopSignal


@pytest.fixture
def as_in_a_terminal():
    """A job in the background inherits a Ctrl-C that is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_is_told_of_and_the_second_does_what_it_always_does(as_in_a_terminal):
    said = []
    with StopSignal(lambda: said.append("stopping")) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received and said == ["stopping"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert said == ["stopping"]


def test_who_can_not_be_told_of_a_signal_keeps_nothing_from_being_saved():
    def gone():
        raise BrokenPipeError

    with StopSignal(gone) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received


def test_a_terminals_end_may_come_twice():
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert stop.received


def test_a_run_that_outlives_its_terminal_is_not_stopped_by_its_end():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.received
    finally:
        signal.signal(signal.SIGHUP, before)
