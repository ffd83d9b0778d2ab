"""With a time limit the schedule ends when the time is up; without one it is left alone."""

from __future__ import annotations

import math
import signal

import pytest
from helpers.training_runs import Notebook, signal_in_step, small, train

from edgetl.training.engine.learner import Learner
from edgetl.training.engine.resumed_run import resume


@pytest.fixture
def slow_steps(monkeypatch):
    """A minute passes with every step, and none otherwise. → the rate of each step."""
    now, rates, plain = [0.0], [], Learner.step

    def step(self, *arguments):
        rates.append(self.lr)
        now[0] += 60.0
        return plain(self, *arguments)

    monkeypatch.setattr("edgetl.training.engine.loop.time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(Learner, "step", step)
    return rates


@pytest.mark.parametrize("scheduler", ["cosine", "one-cycle"])
def test_without_an_end_the_schedule_is_not_touched(two_parts, tmp_path, slow_steps, scheduler):
    settings = small(two_parts, epochs=4, batch_size=2, warmup=2.0, scheduler=scheduler)
    train(settings, tmp_path / "run")
    assert len(slow_steps) == 32
    if scheduler == "cosine":
        rising = [0.01 + 0.99 * step / 16 for step in range(16)]
        falling = [(1 + math.cos(math.pi * step / 16)) / 2 for step in range(16)]
        assert [rate / settings.lr for rate in slow_steps] == pytest.approx(rising + falling)
    assert len(set(slow_steps)) > 30 and min(slow_steps[16:-1]) > 0


@pytest.mark.parametrize("batch_size", [2, 16])  # eight steps an epoch, and one
def test_the_rate_has_fallen_when_the_time_is_up(two_parts, tmp_path, slow_steps, batch_size):
    settings = small(two_parts, epochs=1000, max_time=30, batch_size=batch_size, warmup=0.0)
    train(settings, tmp_path / "run")
    assert len(slow_steps) == 29  # the last minute and a half are for what comes after the epochs
    rates = [rate / settings.lr for rate in slow_steps]
    cosine = [(1 + math.cos(math.pi * step / 28.5)) / 2 for step in range(29)]
    assert rates == pytest.approx(
        cosine, abs=0.06
    )  # the first step's minute is over before anyone asks


def test_warm_up_takes_half_of_the_time_at_most(two_parts, tmp_path, slow_steps):
    settings = small(two_parts, epochs=1000, max_time=30, batch_size=2, warmup=100.0)
    train(settings, tmp_path / "run")
    rates = [rate / settings.lr for rate in slow_steps]
    assert rates[:15] == sorted(rates[:15]) and max(rates[:15]) < 0.05
    assert rates[16] > 0.95 and rates[16:] == sorted(rates[16:], reverse=True) and rates[-1] < 0.05


@pytest.mark.parametrize(
    ("warmup", "stopped"), [(1.0, 18), (100.0, 12)]
)  # after it, and in its midst
def test_a_run_that_goes_on_knows_when_its_warm_up_is_over(
    two_parts, tmp_path, slow_steps, monkeypatch, warmup, stopped
):
    settings = small(two_parts, epochs=1000, max_time=30, batch_size=2, warmup=warmup)
    train(settings, tmp_path / "whole")
    whole, notebook = list(slow_steps), Notebook()
    slow_steps.clear()
    with monkeypatch.context() as patch:
        signal_in_step(patch, stopped, signal.SIGINT)
        assert not train(settings, tmp_path / "parts").finished
    assert resume(tmp_path / "parts", listener=notebook).finished
    assert slow_steps == pytest.approx(whole, rel=1e-9)
    assert not [note for note in notebook.notes if note.startswith("Preparing took")]
