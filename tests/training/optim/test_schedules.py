"""Learning-rate curves against the formulas, with and without warm-up."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler

from edgetl.training.config.settings import TrainSettings
from edgetl.training.optim import schedules
from edgetl.training.optim.schedules import Schedule, learning_rate

EPOCHS, STEPS, RATE = 6, 5, 0.1
TOTAL = EPOCHS * STEPS


def optimizer_of(rate: float = RATE) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], rate)


def curve(losses: list[float] | None = None, **changes) -> list[float]:
    """The rate at each step of a run."""
    optimizer = optimizer_of()
    schedule = Schedule(optimizer, TrainSettings("d", epochs=EPOCHS, **changes), STEPS)
    rates = []
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        schedule.epoch_ended(losses[epoch] if losses else 1.0)
    return rates


def torch_curve(make, steps: int = TOTAL) -> list[float]:
    """The rates of one of torch's own schedulers, stepped on its own."""
    optimizer = optimizer_of()
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def warm_up(steps: int) -> list[float]:
    return [RATE * (0.01 + 0.99 * step / steps) for step in range(steps)]


def test_step_falls_every_so_many_epochs():
    expected = torch_curve(lambda o: lr_scheduler.StepLR(o, 2 * STEPS, 0.5))
    assert curve(scheduler="step", step_size=2, gamma=0.5, warmup=0) == expected


def test_cosine_is_torchs():
    expected = torch_curve(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL))
    assert curve(scheduler="cosine", warmup=0) == expected


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # torch's own call
@pytest.mark.parametrize("scheduler", ["none", "step", "cosine"])
def test_with_a_warm_up_every_bit_is_torchs(scheduler):
    def chained(optimizer):
        rising = lr_scheduler.LinearLR(optimizer, 0.01, 1.0, 7)
        falling = {
            "none": lambda: lr_scheduler.ConstantLR(optimizer, 1.0),
            "step": lambda: lr_scheduler.StepLR(optimizer, 2 * STEPS, 0.3),
            "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, TOTAL - 7),
        }[scheduler]()
        return lr_scheduler.SequentialLR(optimizer, [rising, falling], [7])

    expected = torch_curve(chained)
    assert curve(scheduler=scheduler, warmup=1.4, step_size=2, gamma=0.3) == expected


def test_cosine_after_warm_up():
    rest = torch_curve(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL - 10), TOTAL - 10)
    assert curve(scheduler="cosine", warmup=2) == pytest.approx(warm_up(10) + rest)


def test_step_after_warm_up():
    rest = [RATE * 0.1 ** (step // (2 * STEPS)) for step in range(TOTAL - STEPS)]
    assert curve(scheduler="step", step_size=2, warmup=1) == pytest.approx(warm_up(STEPS) + rest)


@pytest.mark.parametrize("scheduler", ["step", "cosine", "one-cycle", "plateau"])
def test_a_run_of_one_step_makes_it_at_the_full_rate(scheduler):
    optimizer = optimizer_of()
    Schedule(optimizer, TrainSettings("d", epochs=1, scheduler=scheduler), 1)
    assert optimizer.param_groups[0]["lr"] == RATE


@pytest.mark.parametrize(("warmup", "share"), [(0, 0.3), (1.5, 8 / TOTAL)])
def test_one_cycle_is_torchs_and_rises_in_the_warm_up(warmup, share):
    own = torch_curve(
        lambda o: lr_scheduler.OneCycleLR(o, RATE, TOTAL, pct_start=share, cycle_momentum=False),
        TOTAL,
    )
    assert curve(scheduler="one-cycle", warmup=warmup) == own


def test_constant_after_warm_up():
    assert curve(scheduler="none", warmup=1) == pytest.approx(
        warm_up(STEPS) + [RATE] * (TOTAL - STEPS)
    )


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, 0.5, 0.6, 0.6, 0.6, 0.6],
        [1.0, 1.0, 1.0, 0.9, 0.95, 0.95],
        [3.0, 2.0, 1.0, 0.5, 0.2, 0.1],
    ],
)
def test_plateau_is_torchs(losses):
    optimizer = optimizer_of()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=1)
    expected = []
    for loss in losses:
        expected += [optimizer.param_groups[0]["lr"]] * STEPS
        scheduler.step(loss)
    assert curve(losses, scheduler="plateau", patience=1, gamma=0.1, warmup=0) == expected


def test_plateau_ignores_the_warm_up():
    rates = curve(
        [1.0, 2.0, 3.0, 2.9, 2.8, 2.7], scheduler="plateau", patience=0, gamma=0.1, warmup=2
    )
    assert rates == pytest.approx(warm_up(2 * STEPS) + [RATE] * (TOTAL - 2 * STEPS))


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 1.0), (2, 5.0), (3, 100.0)])
def test_a_short_run_falls_as_well(epochs, warmup):
    optimizer = optimizer_of()
    schedule = Schedule(optimizer, TrainSettings("d", epochs=epochs, warmup=warmup), STEPS)
    rates = []
    for _ in range(epochs * STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == rates[epochs * STEPS // 2] == pytest.approx(RATE)
    assert rates[-1] < 0.3 * RATE


@pytest.mark.parametrize(
    ("scheduler", "warmup"), [("cosine", 1), ("cosine", 0), ("one-cycle", 1), ("one-cycle", 0)]
)
@pytest.mark.parametrize("allowed", [7, 12, 20])
def test_cosine_and_one_cycle_are_at_their_end_when_the_time_is_up(scheduler, warmup, allowed):
    """Of 30 steps there is time for ``allowed``."""
    whole = curve(scheduler=scheduler, warmup=warmup)
    optimizer = optimizer_of()
    schedule = Schedule(
        optimizer, TrainSettings("d", epochs=EPOCHS, scheduler=scheduler, warmup=warmup), STEPS
    )
    first = warmup * STEPS
    rates = []
    for step in range(allowed):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        if step + 1 >= first:
            schedule.skip_ahead((step + 1 - first) / (allowed - first))
    assert rates[:first] == pytest.approx(whole[:first])
    assert all(
        min(abs(rate - other) for other in whole) < 1e-12 for rate in rates
    )  # the same curve, steps left out
    assert max(rates) >= 0.9 * RATE and rates[-1] < 0.6 * max(rates)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] < 0.01 * RATE
    for _ in range(5):  # and never rises again
        schedule.skip_ahead(1.0)
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["lr"] < 0.01 * RATE


@pytest.mark.parametrize("scheduler", ["cosine", "one-cycle"])
@pytest.mark.parametrize("warmup", [0, 2])
def test_nothing_is_skipped_while_no_time_has_passed(scheduler, warmup):
    optimizer = optimizer_of()
    schedule = Schedule(
        optimizer, TrainSettings("d", epochs=EPOCHS, scheduler=scheduler, warmup=warmup), STEPS
    )
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        schedule.skip_ahead(0.0)
    assert rates == curve(scheduler=scheduler, warmup=warmup)


@pytest.mark.parametrize("scheduler", ["cosine", "one-cycle"])
@pytest.mark.parametrize("begun", [0, 3, 8])  # in warm-up, which lasts five steps, or behind it
def test_millions_of_steps_are_skipped_at_once(scheduler, begun, monkeypatch):
    epochs, computed = 10**6, []
    monkeypatch.setattr(
        schedules,
        "learning_rate",
        lambda *arguments: (computed.append(arguments), learning_rate(*arguments))[1],
    )
    optimizer = optimizer_of()
    schedule = Schedule(
        optimizer, TrainSettings("d", epochs=epochs, scheduler=scheduler, warmup=1), STEPS
    )
    for _ in range(begun):
        optimizer.step()
        schedule.step()
    rates = []
    for share in (0.25, 0.5, 0.75):
        schedule.skip_ahead(share)
        rates.append(optimizer.param_groups[0]["lr"] / RATE)
    assert rates == pytest.approx(
        [(1 + math.cos(math.pi * share)) / 2 for share in (0.25, 0.5, 0.75)], abs=1e-4
    )
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(RATE * rates[-1], rel=1e-4)
    assert len(computed) == 1 + begun + 3 + 1


@pytest.mark.parametrize("scheduler", ["none", "step", "plateau"])
def test_other_schedules_skip_nothing(scheduler):
    optimizer = optimizer_of()
    schedule = Schedule(
        optimizer, TrainSettings("d", epochs=EPOCHS, scheduler=scheduler, warmup=0), STEPS
    )
    schedule.skip_ahead(0.9)
    assert optimizer.param_groups[0]["lr"] == RATE


def test_plateau_falls_when_the_loss_stalls():
    losses = [1.0, 0.5, 0.6, 0.6, 0.6, 0.6]
    rates = curve(losses, scheduler="plateau", patience=1, gamma=0.1, warmup=1)
    by_epoch = rates[::STEPS]
    assert rates[:STEPS] == pytest.approx(warm_up(STEPS))
    assert by_epoch[1:] == pytest.approx([RATE, RATE, RATE, RATE * 0.1, RATE * 0.1])


def test_a_plateau_that_never_falls():
    assert set(curve([1.0] * EPOCHS, scheduler="plateau", patience=0, gamma=1.0, warmup=0)) == {
        RATE
    }


def test_a_restored_plateau_continues_counting():
    def listen(schedule: Schedule, losses: list[float]) -> Schedule:
        for loss in losses:
            schedule.step()
            schedule.epoch_ended(loss)
        return schedule

    settings = TrainSettings(
        "d", epochs=EPOCHS, scheduler="plateau", warmup=0, patience=1, gamma=0.1
    )
    first, second = optimizer_of(), optimizer_of()
    before = listen(Schedule(first, settings, STEPS), [1.0, 1.0])
    assert first.param_groups[0]["lr"] == RATE
    after = Schedule(second, settings, STEPS)
    second.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    listen(after, [1.0])
    assert second.param_groups[0]["lr"] == pytest.approx(0.1 * RATE)


@pytest.mark.parametrize("scheduler", ["none", "step", "cosine", "one-cycle", "plateau"])
@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_a_restored_schedule_goes_on_the_same(scheduler, warmup):
    settings = TrainSettings("d", epochs=EPOCHS, scheduler=scheduler, warmup=warmup, patience=0)
    whole = curve(scheduler=scheduler, warmup=warmup, patience=0)
    first = optimizer_of()
    schedule = Schedule(first, settings, STEPS)
    for _ in range(7):
        first.step()
        schedule.step()
    second = optimizer_of()
    resumed = Schedule(second, settings, STEPS)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    rates = []
    for _ in range(3):
        rates.append(second.param_groups[0]["lr"])
        second.step()
        resumed.step()
    assert rates == pytest.approx(whole[7:10])
    assert all(math.isfinite(rate) for rate in rates)


@pytest.mark.parametrize("scheduler", ["step", "cosine", "one-cycle", "plateau"])
@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (2, 1), (3, 1), (12, 1), (1, 2), (1, 3)])
def test_the_shortest_runs_have_a_schedule(scheduler, epochs, steps):
    optimizer = optimizer_of()
    schedule = Schedule(
        optimizer, TrainSettings("d", epochs=epochs, scheduler=scheduler, warmup=1), steps
    )
    for _ in range(epochs * steps):
        optimizer.step()
        schedule.step()
        assert all(0 <= group["lr"] <= 2 for group in optimizer.param_groups)
