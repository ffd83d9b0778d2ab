"""``edgetl train``: photos in, a run folder out. Its options are the fields of ``TrainSettings``."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from edgetl.cli import INTERRUPTED
from edgetl.cli.option_types import SomePath
from edgetl.cli.printable import counted, printable
from edgetl.data.layout import VAL, data_parts
from edgetl.errors import TrainingError
from edgetl.system.paths import real_path
from edgetl.system.shell import shell_word
from edgetl.training.config.recipes import resolve
from edgetl.training.config.run_folder import (
    BEST,
    LAST,
    METRICS,
    REPORT,
    is_resumable,
    require_free,
    require_resumable,
)
from edgetl.training.config.settings import (
    OPTIONS,
    SOLVER,
    Option,
    TrainSettings,
    defaults,
    field_types,
    flag,
)

if TYPE_CHECKING:
    from edgetl.training.config.listener import Listener
    from edgetl.training.engine.run import Outcome

EVERY_OPTION = f"{__name__}.every_option"
"""Key of ``click.Context.meta``: whether help shows every option."""

_GOOD = 0.95  # an accuracy above which training more than the head gained nothing: scripts/experiments.md
_MUCH_LESS = 0.1  # than the accuracy: a recall that is to be told
_RARE = ("find_lr",)  # of the command's own options
_NO_RATE = "The loss hardly falls at any rate; no --lr is suggested."
_FROM_SOLVED_HEAD = "\nFrom a solved head that says little: the default will do; --no-warm-head shows what a random one takes."


class GroupedCommand(click.Command):
    """Shows the options that most need; where the context holds ``EVERY_OPTION``, all of them, in their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Called by click for ``--help``."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in sorted(self.get_params(ctx), key=_place):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            heading = _heading(parameter, every=ctx.meta.get(EVERY_OPTION, False))
            if record and heading:
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _place(parameter: click.Parameter) -> int:
    """The command's own options come first, its help last."""
    return 2 if parameter.is_eager else 1 if parameter.name in OPTIONS else 0


def _heading(parameter: click.Parameter, *, every: bool) -> str | None:
    """What a parameter stands under, or None if it is not shown."""
    option = OPTIONS.get(parameter.name or "")
    if every:
        return option.group if option else "Help" if parameter.is_eager else "Run"
    common = option.common if option else parameter.name not in _RARE
    return "Options" if common else None


def _show_every_option(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.meta[EVERY_OPTION] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _settings_options() -> list[click.Option]:
    """One option for each knob. None of them has a default here: what was not given is the recipe's to decide."""
    types, values = field_types(), defaults()
    return [
        _click_option(name, option, types[name], values[name]) for name, option in OPTIONS.items()
    ]


def _click_option(name: str, option: Option, kind: type, default: Any) -> click.Option:
    pair = isinstance(default, tuple)
    shown = (
        " ".join(f"{value:.4g}" for value in default)
        if pair
        else str(default).lower()
        if kind is bool
        else default
    )
    text = f"{option.help}  [default: {shown}]"
    if kind is bool:
        return click.Option([f"{flag(name)}/--no-{flag(name)[2:]}", name], default=None, help=text)
    value_type: Any = click.Choice(option.choices) if option.choices else kind
    return click.Option(
        [flag(name), name], type=value_type, nargs=2 if pair else 1, default=None, help=text
    )


@click.command(
    cls=GroupedCommand,
    params=_settings_options(),
    short_help="Train a classifier on folders of photos.",
)
@click.argument("data", required=False, type=SomePath())
@click.option("-o", "--out", "--output", "out", type=SomePath(), help="Folder to write the run to.")
@click.option("--resume", type=SomePath(), metavar="RUN", help="Go on with an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Throw away an earlier run in that folder.")
@click.option(
    "--find-lr",
    is_flag=True,
    help="Only try learning rates for that run: writes lr.csv and lr.png.",
)
@click.option(
    "--help-all",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_every_option,
    help="Show every option: recipe, augmentation, precision, caches and more.",
)
def command(
    data: Path | None,
    out: Path | None,
    resume: Path | None,
    overwrite: bool,
    find_lr: bool,
    **options: Any,
) -> None:
    """Train a classifier on DATA, and write the best weights, metrics and a report to a run folder.

    DATA holds train/CLASS/ and val/CLASS/ with photos, or just CLASS/ folders, which are then split.
    With a GPU the whole network is trained, else its head. Where there are epochs, an interrupted run goes on
    with --resume as if it had never stopped; else the same command begins again, with the features that it has.
    Under torchrun all processes train together.

    \b
    Example:
      edgetl train photos -o runs/pets
      edgetl train photos -o runs/pets --strategy full --epochs 20
      edgetl train --resume runs/pets
    """
    given = {name: value for name, value in options.items() if value is not None}
    if resume is not None:
        _refuse_beside_resume(out, overwrite, find_lr, given)
        require_resumable(resume)
        with _showing() as listener, _telling_how_to_go_on(resume, begun=True):
            from edgetl.training.engine import run

            outcome = run.resume(resume, data=data, device=given.get("device"), listener=listener)
        _conclude(outcome)
    else:
        if data is None or out is None:
            raise click.UsageError(
                "Name the folder of photos and the run's folder: edgetl train DATA -o RUN"
            )
        _start(data, out, overwrite, find_lr, given)


def _refuse_beside_resume(
    out: Path | None, overwrite: bool, find_lr: bool, given: dict[str, Any]
) -> None:
    others = [flag(name, value) for name, value in given.items() if name != "device"]
    others += [
        name
        for name, value in (("-o", out), ("--overwrite", overwrite), ("--find-lr", find_lr))
        if value
    ]
    if others:
        raise click.UsageError(
            f"--resume goes on with what the run began with; leave out {', '.join(others)}."
        )


def _start(data: Path, out: Path, overwrite: bool, find_lr: bool, given: dict[str, Any]) -> None:
    started = time.monotonic()
    from edgetl.training.engine.run_photos import find_photos, refuse_among_photos

    # What is wrong with the call is said before torch is imported, which takes seconds.
    settings = _plausible(data, given)
    refuse_among_photos(out, settings)
    if not find_lr:
        require_free(out, overwrite)
    if "val_fraction" in given and VAL in data_parts(data):
        raise TrainingError(
            f"{flag('val_fraction')}: no effect where there is a folder {VAL}/.", "Leave it out."
        )
    with _showing() as listener:
        folders = find_photos(settings, listener)
        from edgetl.training.torch_env.distributed import choose_device

        settings = resolve(data, given, cuda=choose_device(settings.device).type == "cuda")
        if find_lr:
            from edgetl.training.engine.lr_finder import find_learning_rate

            found = find_learning_rate(settings, out, listener=listener, folders=folders)
        else:
            from edgetl.training.engine import run

            with _telling_how_to_go_on(out, cached=settings.feature_cache != "off"):
                outcome = run.train(
                    settings,
                    out,
                    overwrite=overwrite,
                    listener=listener,
                    folders=folders,
                    started=started,
                )
    # Only now: while a bar is shown, it would stand in the same line.
    if not find_lr:
        _conclude(outcome)
        if settings.optimizer == SOLVER and outcome.metrics.get("accuracy", 1.0) < _GOOD:
            click.echo(
                "Only the head was trained; --strategy full takes longer, trains the whole network, and may do better."
            )
    elif _leads():
        said = f"Suggested: --lr {found.suggested:.1e}" if found.suggested else _NO_RATE
        said += _FROM_SOLVED_HEAD if found.solved else ""
        click.echo(f"{said}\nCurve: {found.plot}, as numbers: {found.table}")


def _plausible(data: Path, given: dict[str, Any]) -> TrainSettings:
    """Settings as they are on one kind of device or the other; raises TrainingError for what is wrong on both."""
    try:
        return resolve(data, given, cuda=True)
    except TrainingError:
        return resolve(data, given, cuda=False)


def _leads() -> bool:
    """Of torchrun's processes one talks."""
    alone = (os.environ.get("WORLD_SIZE") or "1") == "1"
    return alone or (os.environ.get("RANK") or "0") == "0"


@contextmanager
def _showing() -> Iterator[Listener]:
    from edgetl.cli.train_display import Display
    from edgetl.training.config.listener import Listener

    logging.getLogger("matplotlib").setLevel(
        logging.ERROR
    )  # it warns of its own cache, in the middle of a bar
    if not _leads():
        yield Listener()
        return
    with Display() as display:
        yield display


@contextmanager
def _telling_how_to_go_on(
    folder: Path, *, begun: bool = False, cached: bool = True
) -> Iterator[None]:
    """For Ctrl-C before the first step and after the last one.

    begun   the run in ``folder`` is this one, and no earlier one
    cached  features are kept for later runs
    """
    before = () if begun else _state_in(folder)
    try:
        yield
    except KeyboardInterrupt:
        kept = "; what is in the feature cache is not computed again" if cached else ""
        said = f"The same command begins again{kept}."
        if is_resumable(folder) and _state_in(folder) != before:
            said = _how_to_go_on(folder)
        raise Stopped(said) from None


def _how_to_go_on(folder: Path) -> str:
    all_of_them, here = (os.environ.get(name) or "1" for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if all_of_them == "1":
        return f"Go on with: edgetl train --resume {shell_word(folder)}"
    if here == all_of_them:
        return f"Go on with: torchrun --nproc-per-node {here} -m edgetl train --resume {shell_word(folder)}"
    return f"Go on with the same torchrun on all machines: … -m edgetl train --resume {shell_word(folder)}"


def _state_in(folder: Path) -> tuple[int, ...]:
    """Tells one state of a run from another; an earlier run's is there until a new one has begun."""
    try:
        status = (folder / LAST).stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns


class Stopped(click.ClickException):
    """Ended by Ctrl-C: what to do next."""

    exit_code = INTERRUPTED

    def show(self, file: IO[Any] | None = None) -> None:
        """Called by ``main``, after the bars are gone."""
        if _leads():
            click.echo(f"Interrupted. {self.message}", err=True)


def _tell_of_the_weakest(metrics: Mapping[str, Any]) -> None:
    """Where an accuracy hides that one class is hardly known, as with classes that are uneven."""
    judged = [found for found in metrics["classes"] if found["recall"] is not None]
    weakest = min(judged, key=lambda found: float(found["recall"]))
    if weakest["recall"] < metrics["accuracy"] - _MUCH_LESS:
        photos = counted(weakest["photos"], "photo")
        click.echo(
            f"Weakest class: {printable(weakest['label'])}, {weakest['recall']:.1%} of its {photos} recognised"
        )


def _conclude(outcome: Outcome) -> None:
    if not outcome.finished:
        raise Stopped(_how_to_go_on(outcome.folder))
    if not outcome.metrics:  # another process of torchrun writes and tells
        return
    metrics = outcome.metrics
    low, high = metrics["accuracy_interval"]
    photos = counted(metrics["photos"], "photo")
    click.echo(
        f"Validation accuracy {metrics['accuracy']:.2%} ({low:.1%} to {high:.1%}) on {photos}, loss {metrics['loss']:.4f}"
    )
    if metrics["epoch"] and not metrics["midway"]:  # the other two are told by notes
        click.echo(f"Kept: epoch {metrics['epoch']}; the loss is the one after calibration")
    folder = outcome.folder
    _tell_of_the_weakest(json.loads((folder / METRICS).read_bytes()))
    click.echo(f"Checkpoint: {folder / BEST}\nReport: {folder / REPORT}")
    click.echo(
        f"Next: edgetl export {shell_word(folder)} -o {shell_word(f'exported/{real_path(folder).name}')}"
    )
