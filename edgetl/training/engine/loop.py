"""The training loop: epochs of steps and validations, the best weights kept, where it stands saved as it goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from edgetl.errors import TrainingError
from edgetl.system.stop_signal import StopSignal
from edgetl.training.config.listener import Listener, StepReport
from edgetl.training.config.run_folder import LAST, candidate_name, promote_candidate
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.setup import TrainingSetup
from edgetl.training.engine.train_state import TrainState, write_state
from edgetl.training.evaluation.run_records import COLUMNS, Events, write_history
from edgetl.training.evaluation.validation import Scores, scores
from edgetl.training.input.loader import Batch
from edgetl.training.optim.schedules import warmup_steps
from edgetl.training.torch_env.distributed import Processes

_LONG = 0.5  # of the time that a run may take, until it trains
_REPORT_SECONDS = 0.2  # between two reports: reading the loss waits for the GPU
# Between two questions among the processes whether to stop or save: each waits for the slowest. torchrun gives them 30 s.
_AGREE_SECONDS, _MOST_AGREE_STEPS = 1.0, 10


@dataclass(frozen=True)
class LoopContext:
    """What a loop works with.

    started   ``time.monotonic()`` when the run began, or went on
    identity  plain values that are saved beside the state, to know the run by when it is resumed
    keep      writes weights that will be the best ones when where the run stands is saved: (network in eval mode,
              where the run stands)
    """

    settings: TrainSettings
    kit: TrainingSetup
    processes: Processes
    folder: Path
    started: float
    identity: dict[str, Any]
    keep: Callable[[nn.Module, TrainState], None]
    listener: Listener

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return self.kit.sampler.steps


class Loop:
    """A run of ``course.settings.epochs`` epochs, from where ``standing`` says."""

    def __init__(self, course: LoopContext, learner: Learner, standing: TrainState) -> None:
        self._course, self._learner, self.standing = course, learner, standing
        self._events: Events | None = None
        self._begun = 0.0  # seconds of the run, when its steps began or went on

    def run(self) -> bool:
        """Train to the end → True; False if a signal came first. Either way, where it stands is saved.

        Raises TrainingError if the loss is no longer a number, CheckpointError if something can't be written.
        """
        try:
            return self._train()
        except _DivergenceError as error:
            raise self._with_what_was_kept(error) from error

    def _with_what_was_kept(self, error: TrainingError) -> TrainingError:
        """Make the best weights so far the kept ones also where no state was saved that knows of them. To go on from an
        earlier one would come to the same end."""
        course, kept = self._course, self.standing.kept
        if course.processes.is_main and (course.folder / candidate_name(kept)).exists():
            promote_candidate(course.folder, kept)
            (course.folder / LAST).unlink(missing_ok=True)
        if self.standing.best is None:
            return error
        of = f"epoch {self.standing.best_epoch}" if self.standing.best_epoch else "the solved head"
        return TrainingError(
            f"{error.message} The weights of {of}, the best before, are in {course.folder}.",
            error.hint,
        )

    def _train(self) -> bool:
        standing, settings, processes = self.standing, self._course.settings, self._course.processes
        if settings.tensorboard and processes.is_main:
            self._events = Events(self._course.folder, standing.history)
        first = standing.step * settings.accumulate
        shares = self._course.kit.sampler.shares(
            processes.rank, settings.epochs, epoch=standing.epoch, batch=first
        )
        clock = _Clock(self._course.started - standing.seconds, settings.max_time)
        took, allowed = clock.seconds() - standing.seconds, 60 * settings.max_time
        if took > _LONG * allowed > 0:
            self._course.listener.note(
                f"To get ready took {took:.0f} of the {allowed:.0f} seconds of --max-time."
            )
        solved = settings.warm_head and self._course.kit.backbone.has_linear_head
        if solved and standing.best is None:
            # A solved head is hard to beat with few photos: then it is what is kept.
            self._publish(self._row(clock, self._judge()))
            self._save(clock)
        standing.begun = clock.seconds() if standing.begun is None else standing.begun
        with (
            StopSignal(self._tell_of_stopping) as stop,
            closing(cast("Any", self._course.kit.loader.batches(shares))) as batches,
        ):
            while not standing.ended:
                if not self._steps(batches, stop, clock):
                    return False
                self._end_epoch(clock)
                stopped, due = processes.all_reduce_max(
                    stop.received, clock.time_to_save(settings.save_every)
                )
                if (
                    standing.ended or stopped or due
                ):  # a GPU may train a short epoch in less time than this takes
                    self._save(clock)
                if stopped:
                    break
        processes.barrier()  # what was kept is there for all
        return standing.ended

    def _tell_of_stopping(self) -> None:
        self._course.listener.stopping("Stopping soon; the state is saved first.")

    def _steps(self, batches: Iterator[Batch], stop: StopSignal, clock: _Clock) -> bool:
        """The rest of an epoch's steps → False if a signal ended it."""
        standing, course = self.standing, self._course
        self._learner.begin_training()
        clock.begin_epoch(standing.step)
        asked, steps, pause = (
            time.monotonic(),
            0,
            0,
        )  # steps since the last question, and from then to the next
        while standing.step < course.steps:
            self._step(batches)
            standing.step += 1
            steps += 1
            if course.processes.is_main and clock.time_to_report():
                self._report(clock)
            if standing.step == course.steps or steps < pause:
                continue
            stopped, out_of_time, save, took, share = course.processes.all_reduce_max(
                stop.received,
                clock.out_of_time(),
                clock.time_to_save(course.settings.save_every),
                (time.monotonic() - asked) / steps,
                self._share_of_time(clock),
            )
            self._learner.skip_ahead(share)
            pause = (
                min(int(_AGREE_SECONDS / max(took, 1e-9)), _MOST_AGREE_STEPS)
                if course.processes.world_size > 1
                else 0
            )
            asked, steps = time.monotonic(), 0
            if stopped:
                self._save(clock)
                return False
            if out_of_time:
                break
            if save:
                self._save(clock)
        return True

    def _share_of_time(self, clock: _Clock) -> float:
        """How much of the time that there is after warm-up is over, 0..1; 0 in warm-up, and where time has no end.

        As of the steps, warm-up takes half of the time at most.
        """
        if clock.endless:
            return 0.0
        standing, course = self.standing, self._course
        done = standing.epoch * course.steps + standing.step
        warmup = warmup_steps(course.settings, course.steps)
        if done < warmup and standing.begun is not None and clock.share_since(standing.begun) < 0.5:
            return 0.0
        standing.warm = clock.seconds() if standing.warm is None else standing.warm
        return clock.share_since(standing.warm)

    def _step(self, batches: Iterator[Batch]) -> None:
        epoch, step = self.standing.epoch, self.standing.step
        count, photos = self._course.kit.sampler.of_step(step)
        self._learner.step(epoch, step, batches, count, photos)

    def _end_epoch(self, clock: _Clock) -> None:
        """Validate, keep the weights if they are the best, write the history.

        A run that is killed before it is saved does the epoch again, and writes again what it wrote.
        """
        course, standing = self._course, self.standing
        lr, rate = self._learner.last_lr, clock.images_per_second(course, standing.step)
        cut = standing.step < course.steps
        standing.epoch, standing.step = standing.epoch + 1, 0
        result = self._judge()
        if result.better_than(standing.gain):
            standing.gain, standing.gain_epoch = result, standing.epoch
        self._learner.epoch_ended(result.tempered)
        self._learner.skip_ahead(*course.processes.all_reduce_max(self._share_of_time(clock)))
        self._take_sums()
        row = self._row(
            clock,
            result,
            lr=lr,
            train_loss=_finite(standing.loss / standing.seen),
            train_accuracy=standing.right / standing.seen,
            images_per_second=rate,
        )
        standing.loss = standing.right = standing.seen = 0.0
        enough = self._enough(clock)
        standing.ended = standing.epoch == course.settings.epochs or enough is not None
        if standing.ended and (middle := self._learner.midway()) is not None:
            self._judge(middle)
        self._publish(row)
        if standing.ended and (cut or standing.epoch < course.settings.epochs):
            course.listener.note(
                f"Ended {'in' if cut else 'after'} epoch {standing.epoch} of {course.settings.epochs}: {enough}."
            )

    def _row(self, clock: _Clock, result: Scores, **trained: float) -> dict[str, Any]:
        """A row of the history, added to it. ``trained``: what is not known of the weights that training began with."""
        self.standing.seconds = clock.seconds()
        judged = {
            "epoch": self.standing.epoch,
            "val_loss": result.loss,
            "val_accuracy": result.accuracy,
            "seconds": self.standing.seconds,
        }
        self.standing.history.append(dict.fromkeys(COLUMNS) | judged | trained)
        return self.standing.history[-1]

    def _judge(self, middle: nn.Module | None = None) -> Scores:
        """Validate the network, or one half-way to it, and keep it if it is the best."""
        course, standing = self._course, self.standing
        network = self._learner.judged() if middle is None else middle
        result = scores(course.kit.validation.logits(network), course.kit.validation.labels)
        _finite(result.loss)
        if result.better_than(standing.best):
            standing.best, standing.best_epoch, standing.midway = (
                result,
                standing.epoch,
                middle is not None,
            )
            if course.processes.is_main:
                course.keep(network, standing)
        return result

    def _publish(self, row: dict[str, Any]) -> None:
        if not self._course.processes.is_main:
            return
        write_history(self._course.folder, self.standing.history)
        if self._events is not None:
            self._events.epoch(row)
        self._course.listener.epoch(row)

    def _enough(self, clock: _Clock) -> str | None:
        """Why no epoch is to come, if so."""
        settings, steps = self._course.settings, self._course.steps
        patience, warmup = settings.early_stop, math.ceil(warmup_steps(settings, steps) / steps)
        begun = max(self.standing.gain_epoch, warmup)  # nothing is to be gained in warm-up
        if self._course.processes.any(clock.out_of_time()):
            return "the time was up"
        stalled = patience and self.standing.epoch - begun >= patience
        return f"no gain since epoch {self.standing.gain_epoch}" if stalled else None

    def _take_sums(self) -> None:
        """Move the sums since the last time, of all processes, to ``standing``."""
        loss, right, seen = self._course.processes.all_reduce_sum(self._learner.sums).tolist()
        self._learner.sums.zero_()
        self.standing.loss += loss
        self.standing.right += right
        self.standing.seen += seen

    def _report(self, clock: _Clock) -> None:
        standing, course = self.standing, self._course
        loss, right, seen = self._learner.sums.tolist()
        rate = clock.images_per_second(course, standing.step)
        photos = course.kit.sampler.photos
        left = photos(course.steps) * (course.settings.epochs - standing.epoch) - photos(
            standing.step
        )
        report = StepReport(
            epoch=standing.epoch + 1,
            epochs=course.settings.epochs,
            step=standing.step,
            steps=course.steps,
            loss=_finite((standing.loss + loss) / (standing.seen + seen)),
            accuracy=(standing.right + right) / (standing.seen + seen),
            images_per_second=rate,
            seconds_left=min(left / rate, clock.seconds_left()),
        )
        course.listener.step(report)

    def _save(self, clock: _Clock) -> None:
        self._take_sums()
        self.standing.seconds = clock.seconds()
        self.save()
        clock.saved()

    def save(self) -> None:
        """Write where the run stands."""
        if self._course.processes.is_main:
            standing = {"standing": self.standing.to_dict(), "learner": self._learner.state_dict()}
            write_state(self._course.folder, {**self._course.identity, **standing})
            if self.standing.best is not None:
                promote_candidate(self._course.folder, self.standing.kept)


class _Clock:
    """Time, as far as the loop asks for it, in seconds; ``max_time`` is in minutes, 0: no end."""

    def __init__(self, start: float, max_time: float) -> None:
        self._start = start
        self._end = start + 60 * max_time if max_time else math.inf
        self._saved = self._reported = self._epoch_start = time.monotonic()
        self._first_step = 0

    def begin_epoch(self, step: int) -> None:
        self._epoch_start, self._first_step = time.monotonic(), step

    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def endless(self) -> bool:
        return math.isinf(self._end)

    def seconds_left(self) -> float:
        return max(self._end - time.monotonic(), 0.0)

    def out_of_time(self) -> bool:
        return self.seconds_left() == 0

    def share_since(self, seconds: float) -> float:
        """Of the time from then to the end, which there is, how much is over, 0..1."""
        passed = self.seconds() - seconds
        return passed / max(passed + self.seconds_left(), 1e-9)

    def time_to_save(self, every: float) -> bool:
        return time.monotonic() - self._saved >= every

    def saved(self) -> None:
        self._saved = time.monotonic()

    def time_to_report(self) -> bool:
        now = time.monotonic()
        if due := now - self._reported >= _REPORT_SECONDS:
            self._reported = now
        return due

    def images_per_second(self, course: LoopContext, step: int) -> float:
        """Of the epoch so far, over all processes; validation does not count."""
        photos = course.kit.sampler.photos
        return (photos(step) - photos(self._first_step)) / max(
            time.monotonic() - self._epoch_start, 1e-9
        )


class _DivergenceError(TrainingError):
    """The loss is no longer a number."""


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise _DivergenceError(
            "The loss is no longer a number.",
            "Train with a smaller --lr, or with --precision float32.",
        )
    return loss
