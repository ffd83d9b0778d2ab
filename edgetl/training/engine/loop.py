"""The training loop: epochs of steps and validations, keeping the best weights, saving states."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, cast

from torch import nn

from edgetl.errors import TrainingError
from edgetl.system.stop_signal import StopSignal
from edgetl.training.config.listener import StepReport
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.run_folder import (
    LAST,
    candidate_name,
    discard_candidates,
    promote_candidate,
)
from edgetl.training.engine.agreement import Agreement
from edgetl.training.engine.kept_weights import KeptWeights, snapshot
from edgetl.training.engine.learner import Learner
from edgetl.training.engine.time_budget import FINAL_SHARE, TimeBudget, Timer
from edgetl.training.engine.train_state import TrainState, write_state
from edgetl.training.engine.training_setup import TrainingSetup
from edgetl.training.evaluation.run_records import HISTORY_COLUMNS, Events, write_history
from edgetl.training.evaluation.validation import Scores, scores
from edgetl.training.input.loader import Batch
from edgetl.training.models import checkpoint
from edgetl.training.optim.schedules import warmup_steps

_SLOW_START = 0.5  # of the time limit spent before the first step: the user should know
_REPORT_SECONDS = 0.2  # between two reports: reading the loss waits for the GPU


class Loop:
    """A run of ``settings.epochs`` epochs, from where ``state`` says.

    identity  plain values that are saved with each state; a resumed run is compared with them
    state     updated as the run goes on

    kept      the best weights; None before the first validation, and in a resumed run until an
              epoch is better
    """

    def __init__(
        self,
        context: RunContext,
        setup: TrainingSetup,
        learner: Learner,
        identity: Mapping[str, Any],
        state: TrainState,
    ) -> None:
        self._context, self._setup, self._learner = context, setup, learner
        self._settings, self._processes = context.settings, context.processes
        self._identity, self.state = identity, state
        self.kept: KeptWeights | None = None
        self._steps_per_epoch = setup.sampler.steps
        max_time = (1 - FINAL_SHARE) * self._settings.max_time
        self._budget = TimeBudget(context.started - state.seconds, max_time)
        self._save_timer = Timer(self._settings.save_every)
        self._report_timer = Timer(_REPORT_SECONDS)
        self._epoch_started, self._first_step = time.monotonic(), 0
        self._events: Events | None = None

    def run(self) -> bool:
        """Train to the end → True; False if a signal came first. The state is saved either way.

        Raises TrainingError if the loss is no longer a number, CheckpointError if something can't
        be written.
        """
        try:
            return self._train()
        except _DivergenceError as error:
            raise self._keep_best_of_diverged(error) from error

    def _keep_best_of_diverged(self, error: TrainingError) -> TrainingError:
        """Keep the best weights, and say so. A state to resume from would diverge again."""
        folder, state = self._context.folder, self.state
        if self._processes.is_main and (folder / candidate_name(state.candidate)).exists():
            promote_candidate(folder, state.candidate)
            (folder / LAST).unlink(missing_ok=True)
        if state.best is None:
            return error
        source = f"epoch {state.best_epoch}" if state.best_epoch else "the solved head"
        return TrainingError(
            f"{error.message} The weights of {source}, the best before, are in {folder}.",
            error.hint,
        )

    def _train(self) -> bool:
        state, settings, processes = self.state, self._settings, self._processes
        if settings.tensorboard and processes.is_main:
            self._events = Events(self._context.folder, state.history)
        shards = self._setup.sampler.shards(
            processes.rank,
            settings.epochs,
            epoch=state.epoch,
            batch=state.step * settings.accumulate,
        )
        preparation, limit = self._budget.seconds() - state.seconds, 60 * settings.max_time
        if preparation > _SLOW_START * limit > 0:
            self._context.listener.note(
                f"Preparing took {preparation:.0f} of the {limit:.0f} seconds of --max-time."
            )
        if self._setup.fitted_head and state.best is None:
            # A fitted head is hard to beat with few photos: then it is what is kept.
            self._publish(self._new_row(self._validate(self._learner.evaluated_network())))
            self._save()
        if state.training_began is None:
            state.training_began = self._budget.seconds()
        with (
            StopSignal(self._announce_stop) as stop,
            closing(cast("Any", self._setup.loader.batches(shards))) as batches,
        ):
            while not state.ended:
                if not self._train_epoch(batches, stop):
                    return False
                self._end_epoch()
                stopped, save = processes.all_reduce_max(stop.received, self._save_timer.is_due())
                # Not after every epoch: a short one on a GPU takes less time than saving does.
                if state.ended or stopped or save:
                    self._save()
                if stopped:
                    break
        processes.barrier()  # the files of the main process are complete
        return state.ended

    def _announce_stop(self) -> None:
        self._context.listener.stopping("Stopping soon; the state is saved first.")

    def _train_epoch(self, batches: Iterator[Batch], stop: StopSignal) -> bool:
        """The rest of an epoch's steps → False if a signal ended it."""
        state = self.state
        self._learner.train_mode()
        self._epoch_started, self._first_step = time.monotonic(), state.step
        agreement = Agreement(self._processes)
        while state.step < self._steps_per_epoch:
            count, photos = self._setup.sampler.of_step(state.step)
            self._learner.step(state.epoch, state.step, batches, count, photos)
            state.step += 1
            if self._processes.is_main and self._report_timer.is_due():
                self._report_timer.restart()
                self._report()
            if not agreement.is_due() or state.step == self._steps_per_epoch:
                continue
            stopped, out_of_time, save, share = agreement.exchange(
                stop.received,
                self._budget.is_up(),
                self._save_timer.is_due(),
                self._share_of_time(),
            )
            self._learner.skip_ahead(share)
            if stopped or (save and not out_of_time):
                self._save()
            if stopped:
                return False
            if out_of_time:
                break
        return True

    def _share_of_time(self) -> float:
        """How much of the time after warm-up has passed, 0..1; 0 during it, and without a limit.

        As with steps, warm-up takes half of the time at most.
        """
        if not self._budget.is_limited:
            return 0.0
        state = self.state
        done = state.epoch * self._steps_per_epoch + state.step
        if (
            done < warmup_steps(self._settings, self._steps_per_epoch)
            and state.training_began is not None
            and self._budget.share_since(state.training_began) < 0.5
        ):
            return 0.0
        if state.warmup_ended is None:
            state.warmup_ended = self._budget.seconds()
        return self._budget.share_since(state.warmup_ended)

    def _end_epoch(self) -> None:
        """Validate, keep the weights if they are the best, and write the history.

        A run that is killed before its state is saved does the epoch again, and writes this again.
        """
        state = self.state
        lr, images_per_second = self._learner.last_lr, self.images_per_second()
        is_cut = state.step < self._steps_per_epoch
        state.epoch, state.step = state.epoch + 1, 0
        result = self._validate(self._learner.evaluated_network())
        if result.better_than(state.best_trained):
            state.best_trained, state.best_trained_epoch = result, state.epoch
        self._learner.epoch_ended(result.tempered)
        self._learner.skip_ahead(*self._processes.all_reduce_max(self._share_of_time()))
        self._collect_sums()
        row = self._new_row(
            result,
            lr=lr,
            train_loss=_require_finite(state.loss / state.seen),
            train_accuracy=state.right / state.seen,
            images_per_second=images_per_second,
        )
        state.loss = state.right = state.seen = 0.0
        reason = self._reason_to_end()
        state.ended = state.epoch == self._settings.epochs or reason is not None
        if state.ended and (network := self._learner.interpolated_network()) is not None:
            self._validate(network, midway=True)
        self._publish(row)
        if state.ended and (is_cut or state.epoch < self._settings.epochs):
            self._context.listener.note(
                f"Ended {'in' if is_cut else 'after'} epoch {state.epoch} of "
                f"{self._settings.epochs}: {reason}."
            )

    def _validate(self, network: nn.Module, *, midway: bool = False) -> Scores:
        """Validate the network, and keep its weights if they are the best.

        midway  it is the one half-way between the beginning and the end
        """
        state, validation = self.state, self._setup.validation
        logits = validation.logits(network)
        result = scores(logits, validation.labels)
        _require_finite(result.loss)
        if not result.better_than(state.best):
            return result
        state.best, state.best_epoch, state.midway = result, state.epoch, midway
        trained = None
        if self._processes.is_main:
            metrics = {
                "accuracy": result.accuracy,
                "loss": result.loss,
                "epoch": state.best_epoch,
                "midway": midway,
            }
            setup, folder = self._setup, self._context.folder
            trained = snapshot(self._context, setup.folders, setup.backbone, network, metrics)
            discard_candidates(folder)  # of epochs since the last save
            checkpoint.save(trained, folder / candidate_name(state.candidate))
        self.kept = KeptWeights(trained, logits)
        return result

    def _reason_to_end(self) -> str | None:
        """Why the run ends before its last epoch, if it does."""
        if self._processes.any(self._budget.is_up()):
            return "the time was up"
        # Nothing improves in warm-up.
        warmup = warmup_steps(self._settings, self._steps_per_epoch)
        warmup_epochs = math.ceil(warmup / self._steps_per_epoch)
        waited = self.state.epoch - max(self.state.best_trained_epoch, warmup_epochs)
        if self._settings.early_stop and waited >= self._settings.early_stop:
            return f"no improvement since epoch {self.state.best_trained_epoch}"
        return None

    def _new_row(self, result: Scores, **trained: float) -> dict[str, Any]:
        """Add a row to the history. ``trained``: values that a fitted head does not have."""
        self.state.seconds = self._budget.seconds()
        validated = {
            "epoch": self.state.epoch,
            "val_loss": result.loss,
            "val_accuracy": result.accuracy,
            "seconds": self.state.seconds,
        }
        self.state.history.append(dict.fromkeys(HISTORY_COLUMNS) | validated | trained)
        return self.state.history[-1]

    def _publish(self, row: dict[str, Any]) -> None:
        if not self._processes.is_main:
            return
        write_history(self._context.folder, self.state.history)
        if self._events is not None:
            self._events.epoch(row)
        self._context.listener.epoch(row)

    def _collect_sums(self) -> None:
        """Move the learner's sums, of all processes, to the state."""
        loss, right, seen = self._processes.all_reduce_sum(self._learner.sums).tolist()
        self._learner.sums.zero_()
        self.state.loss += loss
        self.state.right += right
        self.state.seen += seen

    def images_per_second(self) -> float:
        """Of the epoch so far, over all processes, without validation."""
        photos = self._setup.sampler.photos
        seen = photos(self.state.step) - photos(self._first_step)
        return seen / max(time.monotonic() - self._epoch_started, 1e-9)

    def _report(self) -> None:
        state, epochs = self.state, self._settings.epochs
        loss, right, seen = self._learner.sums.tolist()
        images_per_second = self.images_per_second()
        photos = self._setup.sampler.photos
        left = photos(self._steps_per_epoch) * (epochs - state.epoch) - photos(state.step)
        report = StepReport(
            epoch=state.epoch + 1,
            epochs=epochs,
            step=state.step,
            steps=self._steps_per_epoch,
            loss=_require_finite((state.loss + loss) / (state.seen + seen)),
            accuracy=(state.right + right) / (state.seen + seen),
            images_per_second=images_per_second,
            seconds_left=min(left / images_per_second, self._budget.seconds_left()),
        )
        self._context.listener.step(report)

    def _save(self) -> None:
        self._collect_sums()
        self.state.seconds = self._budget.seconds()
        self.save()
        self._save_timer.restart()

    def save(self) -> None:
        """Write the state, and put the weights that it knows as the best in their place."""
        if not self._processes.is_main:
            return
        saved = {"train_state": self.state.to_dict(), "learner": self._learner.state_dict()}
        write_state(self._context.folder, {**self._identity, **saved})
        if self.state.best is not None:
            promote_candidate(self._context.folder, self.state.candidate)


class _DivergenceError(TrainingError):
    """The loss is no longer a number."""


def _require_finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise _DivergenceError(
            "The loss is no longer a number.",
            "Train with a smaller --lr, or with --precision float32.",
        )
    return loss
