"""The learning rate as a function of the optimizer step: a linear warm-up, then one of five curves.

The curves are those of torch's schedulers. They are written as functions here because a run with a
time limit skips steps, which torch's schedulers can't do.
"""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from edgetl.training.config.settings import TrainSettings

# Of the full rate: in its first steps the optimizer knows nothing about the gradients' size.
_WARMUP_START = 0.01
# The defaults of torch's OneCycleLR: the part of the run in which the rate rises (where warm-up
# is 0), and what the largest rate is divided by at the start, and then again at the end.
_ONE_CYCLE_RISE = 0.3
_ONE_CYCLE_START, _ONE_CYCLE_END = 25.0, 1e4


def warmup_steps(settings: TrainSettings, steps_per_epoch: int) -> int:
    """Optimizer steps of warm-up: at most half of the run, so that a short run decays too."""
    total = settings.epochs * steps_per_epoch
    return min(math.ceil(settings.warmup * steps_per_epoch), total // 2)


def learning_rate(
    step: int, base: float, previous: float | None, settings: TrainSettings, steps_per_epoch: int
) -> float:
    """The learning rate of one optimizer step of a run.

    step      counted from 0; at most ``epochs`` × ``steps_per_epoch``
    base      the full rate, which warm-up leads to
    previous  the rate of the step before; None for step 0, and where steps were skipped, which
              only cosine and one-cycle allow, after warm-up

    A rate is computed from the previous one where torch does it that way: the closed form would
    differ in the last bit, and so would the trained weights.
    """
    total, warmup = settings.epochs * steps_per_epoch, warmup_steps(settings, steps_per_epoch)
    if settings.scheduler == "one-cycle" and total > 1:
        return _one_cycle(step, base, total, warmup)
    if step < warmup or (step == warmup > 0 and settings.scheduler == "plateau"):
        if previous is None:
            return base * _WARMUP_START
        rise = 1.0 - _WARMUP_START
        return previous * (1.0 + rise / (warmup * _WARMUP_START + (step - 1) * rise))
    if step == warmup:
        return base
    if settings.scheduler == "cosine":
        return _cosine(step - warmup, base, previous, max(total - warmup, 1))
    if previous is None:
        raise ValueError(f"Steps of {settings.scheduler} can't be skipped.")
    interval = settings.step_size * steps_per_epoch
    falls = settings.scheduler == "step" and (step - warmup) % interval == 0
    return previous * settings.gamma if falls else previous


def _cosine(step: int, base: float, previous: float | None, steps: int) -> float:
    """From ``base`` to 0, as torch's CosineAnnealingLR."""
    now = 1 + math.cos(math.pi * step / steps)
    if previous is None:
        return base * now / 2
    return now / (1 + math.cos(math.pi * (step - 1) / steps)) * previous


def _one_cycle(step: int, base: float, total: int, warmup: int) -> float:
    """Up to ``base`` and down again, both as half a cosine, as torch's OneCycleLR."""
    # At least two steps: the rise ends at the step before ``peak``, and is divided by.
    share = max(warmup, 2) / total if warmup and total > 2 else _ONE_CYCLE_RISE
    peak = share * total - 1
    lowest = base / _ONE_CYCLE_START
    if step <= peak:
        start, end, done = lowest, base, step / peak
    else:
        start, end = base, lowest / _ONE_CYCLE_END
        done = (step - peak) / (total - 1 - peak)
    return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1)


class Schedule:
    """Sets the learning rates of an optimizer, from the first step of a run to the last.

    Call ``step`` after each optimizer step, and ``epoch_ended`` after each validation.
    """

    def __init__(self, optimizer: Optimizer, settings: TrainSettings, steps_per_epoch: int) -> None:
        self._optimizer, self._settings = optimizer, settings
        self._steps_per_epoch = steps_per_epoch
        self._total = settings.epochs * steps_per_epoch
        self._warmup = warmup_steps(settings, steps_per_epoch)
        self._decays_by_steps = settings.scheduler in ("cosine", "one-cycle")
        self._base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._step = 0
        self._set_rates(from_previous=False)
        self._plateau: ReduceLROnPlateau | None = None
        if settings.scheduler == "plateau" and settings.gamma < 1:  # torch takes no other factor
            self._plateau = ReduceLROnPlateau(
                optimizer, factor=settings.gamma, patience=settings.patience
            )

    def _set_rates(self, *, from_previous: bool) -> None:
        for group, base in zip(self._optimizer.param_groups, self._base_rates, strict=True):
            previous = group["lr"] if from_previous else None
            group["lr"] = learning_rate(
                self._step, base, previous, self._settings, self._steps_per_epoch
            )

    def step(self) -> None:
        """Go on to the next step."""
        # After skipped steps a run may take more of them than the curve has; it would rise again.
        if not self._decays_by_steps or self._step < self._total:
            self._step += 1
            self._set_rates(from_previous=True)

    def skip_ahead(self, share: float) -> None:
        """Skip steps until as much of the curve after warm-up is done as of the time for it.

        share  of that time, 0..1; 0 changes nothing

        Only cosine and one-cycle, which depend on nothing but the step. A run that its time limit
        ends is then at the end of its curve, with rates as small as they should be.
        """
        if not self._decays_by_steps or share == 0:
            return
        last = self._warmup + share * (self._total - self._warmup)
        step = max(math.ceil(min(last, self._total) - 1), self._warmup)
        if self._step < step:
            self._step = step
            self._set_rates(from_previous=False)

    def epoch_ended(self, val_loss: float) -> None:
        """After a validation. Plateau ignores the warm-up, which says nothing of the full rate."""
        if self._plateau is not None and self._step > self._warmup:
            self._plateau.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a resumed run; the rates themselves are in the optimizer's state."""
        return {
            "step": self._step,
            "plateau": self._plateau.state_dict() if self._plateau else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, in a schedule of the same settings."""
        self._step = int(state["step"])
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])
