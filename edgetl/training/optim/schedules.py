"""Learning-rate schedules: torch's own, stepped after every optimizer step, each after a linear warm-up."""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from edgetl.training.config.settings import TrainSettings

_WARMUP_START = (
    0.01  # of the full rate; the optimizer's first steps know nothing of the gradients' size
)
_ONE_CYCLE_RISE = (
    0.3  # share of the run in which one-cycle rises where warm-up is 0: torch's default
)


def warmup_steps(settings: TrainSettings, steps_per_epoch: int) -> int:
    """Optimizer steps of warm-up: as many as asked for, but no more than half of the run, since a short one must fall, too."""
    return min(math.ceil(settings.warmup * steps_per_epoch), settings.epochs * steps_per_epoch // 2)


class Schedule:
    """The learning rate over a run of ``epochs`` × ``steps_per_epoch`` optimizer steps.

    ``step`` after each optimizer step, ``epoch_ended`` after each validation (which plateau listens to).
    """

    def __init__(self, optimizer: Optimizer, settings: TrainSettings, steps_per_epoch: int) -> None:
        total = self._total = settings.epochs * steps_per_epoch
        self._falls = settings.scheduler in ("cosine", "one-cycle")
        warmup = self._warmup = warmup_steps(settings, steps_per_epoch)
        self._plateau: lr_scheduler.ReduceLROnPlateau | None = None
        self._stepwise: lr_scheduler.LRScheduler
        if settings.scheduler == "plateau":
            # Warm-up alone runs by steps here: its factor is applied to whatever rate stands, and ends at 1.
            self._stepwise = _warm_up(optimizer, warmup)
            if settings.gamma < 1:  # torch takes no other
                self._plateau = lr_scheduler.ReduceLROnPlateau(
                    optimizer, factor=settings.gamma, patience=settings.patience
                )
        elif settings.scheduler == "one-cycle" and total > 1:  # has a warm-up of its own
            rise = (
                max(warmup, 2) / total if warmup and total > 2 else _ONE_CYCLE_RISE
            )  # torch divides by a rise of 1 less 1
            rates = [group["lr"] for group in optimizer.param_groups]
            # Momentum is left alone: the option that gives it means what it says.
            self._stepwise = lr_scheduler.OneCycleLR(
                optimizer, rates, total, pct_start=rise, cycle_momentum=False
            )
        elif not warmup:
            self._stepwise = _main_part(optimizer, settings, total, steps_per_epoch)
        else:
            parts = [
                _warm_up(optimizer, warmup),
                _main_part(optimizer, settings, total - warmup, steps_per_epoch),
            ]
            self._stepwise = lr_scheduler.SequentialLR(optimizer, parts, [warmup])

    def step(self) -> None:
        """After an optimizer step."""
        if (
            not self._falls or self._stepwise.last_epoch < self._total
        ):  # hurried to its end, it would rise again
            self._advance()

    def hurry(self, share: float) -> None:
        """Pass over steps, until as much of what follows warm-up is done as of the time that there is for it.

        share  of that time, 0..1; 0 changes nothing

        Only what falls by steps alone is hurried, cosine and one-cycle. A run whose time is up is then at its end, with
        rates as small as they should be, and not somewhere at the top.
        """
        if not self._falls or share == 0:
            return
        last = self._warmup + share * (self._total - self._warmup)
        step = max(math.ceil(min(last, self._total) - 1), self._warmup)
        if self._stepwise.last_epoch < step:
            self._pass_over_to(step)

    def _pass_over_to(self, step: int) -> None:
        """Where ``step`` after ``step`` would lead, at once: a run that time will end may have millions of them."""
        fall: Any = self._stepwise
        if isinstance(fall, lr_scheduler.SequentialLR):
            if fall.last_epoch < self._warmup:
                fall.last_epoch = self._warmup - 1
                self._advance()
            fall.last_epoch = step
            fall = fall._schedulers[-1]
            step -= self._warmup
        fall.last_epoch = step
        if isinstance(
            fall, lr_scheduler.CosineAnnealingLR
        ):  # whose own step goes on from the step before
            rates = [
                rate * (1 + math.cos(math.pi * step / fall.T_max)) / 2 for rate in fall.base_lrs
            ]
        else:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # it is meant to be asked by its own step
                rates = fall.get_lr()
        for group, rate in zip(fall.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _advance(self) -> None:
        with warnings.catch_warnings():
            # fp16's scaler may pass over the first step, which torch takes for a mistake; and torch 2.6 warns of what its
            # own schedule does where warm-up ends.
            warnings.simplefilter("ignore", UserWarning)
            self._stepwise.step()

    def epoch_ended(self, val_loss: float) -> None:
        """After a validation. An epoch of warm-up says nothing of whether the full rate still helps."""
        if self._plateau is not None and self._stepwise.last_epoch > self._warmup:
            self._plateau.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a resumed run."""
        return {
            "stepwise": self._stepwise.state_dict(),
            "plateau": self._plateau.state_dict() if self._plateau else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What ``state_dict`` gave, in a schedule of the same settings."""
        self._stepwise.load_state_dict(state["stepwise"])
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])


def _warm_up(optimizer: Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.LinearLR(optimizer, _WARMUP_START if steps else 1.0, 1.0, max(steps, 1))


def _main_part(
    optimizer: Optimizer, settings: TrainSettings, steps: int, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    if settings.scheduler == "step":
        return lr_scheduler.StepLR(optimizer, settings.step_size * steps_per_epoch, settings.gamma)
    if settings.scheduler == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    return lr_scheduler.ConstantLR(optimizer, 1.0)
