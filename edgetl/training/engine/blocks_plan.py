"""Whether to train the last blocks after the head is fitted, and how many of them.

A frozen network's features fit some photos badly: those where people, light or background vary more
than what is to be told apart. Cross-validation of the head shows it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import torch

from edgetl.system.shell import shell_word
from edgetl.training.config.option import flag
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.settings import TrainSettings, defaults
from edgetl.training.head.head_preparation import PreparedHead
from edgetl.training.head.linear_head import Head
from edgetl.training.input.activations import MOST_VIEWS
from edgetl.training.models.backbone import Backbone

_GOOD = 0.97  # accuracy of a head, above which training more than it gained nothing
_FEWEST_EPOCHS, _MOST_EPOCHS = 6, 12
# Photos that the head can't tell apart are far from those of the pretraining: they gain by a higher
# rate than the default, by which others would lose; see scripts/experiments.md.
_LEARNING_RATE = 1.5e-3
# Of all blocks: the lowest see edges and colours, and are the slowest.
_FEWEST_BLOCKS, _MOST_BLOCKS = 1 / 6, 2 / 3
_SHARE = 0.9  # of the time that is left: the rest is for validation and the report
_TIMED_PHOTOS, _TIMED_STEPS = 2, 2


@dataclass(frozen=True)
class BlockTimes:
    """Seconds that a photo takes on this machine.

    forward   of each block, in forward order
    training  of a training step of the last blocks, as a multiple of their forward pass
    """

    forward: tuple[float, ...]
    training: float

    def seconds(self, blocks: int, epochs: int, photos: int) -> float:
        """To train the last ``blocks`` blocks, from activations, on ``photos`` photos."""
        lower, upper = sum(self.forward[:-blocks]), sum(self.forward[-blocks:])
        return photos * (min(epochs, MOST_VIEWS) * lower + epochs * self.training * upper)


def measure_blocks(backbone: Backbone) -> BlockTimes:
    """Time a training step of the blocks that may be trained. Puts the backbone into eval mode.

    The lesser of two times counts: other programs only add to it, as does the first step, in which
    kernels are chosen. A third step hardly changes them, on a quiet machine and on a busy one.
    """
    module, marks, steps = backbone.module.eval(), list[float](), list[list[float]]()
    images = torch.zeros(_TIMED_PHOTOS, 3, *backbone.size)
    images = images.contiguous(memory_format=torch.channels_last)
    trained = backbone.blocks[-max(int(len(backbone.blocks) * _MOST_BLOCKS), 1) :]
    parameters = [
        value
        for path in chain(*trained)
        for value in module.get_submodule(path).parameters()
        if value.requires_grad
    ]
    hooks = [
        module.get_submodule(block[0]).register_forward_pre_hook(
            lambda *_: marks.append(time.monotonic())
        )
        for block in backbone.blocks
    ]
    try:
        for _ in range(_TIMED_STEPS):
            marks.clear()
            logits = module(images)
            marks.append(time.monotonic())
            torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
            marks.append(time.monotonic())
            steps.append([later - earlier for earlier, later in pairwise(marks)])
    finally:
        for hook in hooks:
            hook.remove()
    *forward, backward = map(min, zip(*steps, strict=True))
    share = 1 + backward / max(sum(forward[-len(trained) :]), 1e-9)
    return BlockTimes(tuple(seconds / _TIMED_PHOTOS for seconds in forward), share)


@dataclass(frozen=True)
class BlocksPlan:
    """How many of the last blocks to train, and for how many epochs."""

    blocks: int
    epochs: int


def plan_blocks(times: BlockTimes, photos: int, seconds: float) -> BlocksPlan | None:
    """The most of the last blocks that can be trained in ``seconds``, and for how many epochs.

    None if there is no time for that.
    """
    total = len(times.forward)
    for blocks in range(int(total * _MOST_BLOCKS), max(int(total * _FEWEST_BLOCKS), 1) - 1, -1):
        for epochs in range(_MOST_EPOCHS, _FEWEST_EPOCHS - 1, -1):
            if times.seconds(blocks, epochs, photos) <= seconds * _SHARE:
                return BlocksPlan(blocks, epochs)
    return None


def settings_after_head(context: RunContext, prepared: PreparedHead) -> TrainSettings | None:
    """The settings to go on with after the head is fitted; None if it is the result.

    Where training more may pay, but there is no time for it, a note names the command that does it.
    """
    settings, listener = context.settings, context.listener
    one_cpu = context.device.type == "cpu" and context.processes.world_size == 1
    if not one_cpu or settings.weights == "none":  # features of random blocks say nothing of others
        return None
    accuracy = _accuracy_to_improve(prepared.head)
    if accuracy is None:
        if settings.strategy == "auto":
            listener.note("Only the head was trained: by cross-validation, it needs no more.")
        return None
    times, photos = measure_blocks(prepared.backbone), len(prepared.folders.train)
    passed = time.monotonic() - context.started
    plan = plan_blocks(times, photos, 60 * settings.max_time - passed)
    if settings.strategy == "auto" and plan is not None:
        listener.note(
            f"Cross-validation gives the head {accuracy:.1%}: the last {plan.blocks} of "
            f"{len(times.forward)} blocks are trained, too, for {plan.epochs} epochs at most."
        )
        return replace(
            settings,
            strategy="last-blocks",
            optimizer="adamw",
            blocks=plan.blocks,
            epochs=plan.epochs,
            lr=_LEARNING_RATE,
        )
    needed = times.seconds(len(times.forward) // 2, _MOST_EPOCHS, photos) / _SHARE + passed
    minutes = math.ceil(needed / 60)
    allowed = f", more than the {settings.max_time:g} allowed," if settings.max_time else ""
    listener.note(
        f"Only the head was trained: cross-validation gives it {accuracy:.1%}. Training the last "
        f"blocks, too, takes {minutes} min here{allowed} and may avoid up to a quarter of its "
        f"mistakes: {_command(context, minutes)}"
    )
    return None


def _accuracy_to_improve(head: Head) -> float | None:
    """The head's accuracy by cross-validation; None if it is good, or there were too few photos.

    Each doubtful label counts as a mistake there. It is no fault of the head, and training more
    would not mend it.
    """
    found = head.cross_validation
    if found is None:
        return None
    error = 1 - found.score.accuracy
    standard_error = math.sqrt(error * (1 - error) / len(found.losses))
    mistakes = error - len(found.label_issues) / len(found.photos)
    return None if mistakes - standard_error <= 1 - _GOOD else 1 - error


def _command(context: RunContext, minutes: int) -> str:
    """The command that trains the same, but for so many minutes."""
    settings = context.settings
    own = {"strategy", "optimizer", "max_time"}
    if settings.has_budget:
        own |= {"backbone", "image_size"}
    words: list[object] = ["edgetl", "train", settings.data, "-o", context.folder, "--overwrite"]
    for name, default in defaults().items():
        value = getattr(settings, name)
        if value == default or name in own:
            continue
        words.append(flag(name, value))
        if not isinstance(value, bool):
            words += value if isinstance(value, tuple) else [value]
    if context.since is not None:
        words += ["--since", context.since.folder]
    return " ".join(map(shell_word, [*words, "--max-time", minutes]))
