"""``edgetl train``: photos in, a run folder out. Its options are those of ``TrainSettings``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from edgetl.cli import INTERRUPTED
from edgetl.cli.options.model_options import given_options
from edgetl.cli.options.option_types import SomePath
from edgetl.cli.options.output_options import output_option
from edgetl.cli.terminal.comparison_display import print_comparison
from edgetl.cli.terminal.figures import accuracy_in_words, noticed_unknown
from edgetl.system.message_text import counted, printable
from edgetl.system.paths import real_path
from edgetl.system.shell import shell_word
from edgetl.training.config.listener import Listener
from edgetl.training.config.option import Option, flag
from edgetl.training.config.run_folder import BEST, LABEL_ISSUES_TABLE, LAST, REPORT, is_resumable
from edgetl.training.config.settings import OPTIONS, defaults, field_types
from edgetl.training.engine.train_result import TrainResult
from edgetl.training.engine.train_run import RESUMED_WITH, resolve_run, train

EVERY_OPTION = f"{__name__}.every_option"
"""Key of ``click.Context.meta``: whether the help shows every option."""

_MUCH_LESS = 0.1  # than the accuracy: a recall that is worth a line
_RARE = ("find_lr",)  # of the command's own options
_NO_RATE = "The loss hardly falls at any rate; no --lr is suggested."
_FROM_FITTED_HEAD = (
    "\nFrom a solved head that says little: the default will do; "
    "--no-warm-head shows what a random one takes."
)


class GroupedCommand(click.Command):
    """Shows the common options, or with ``EVERY_OPTION`` in the context all of them, by group."""

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
    """The heading of a parameter, or None if it is not shown."""
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
    """One option for each setting, without a default: the recipe decides about those not given."""
    types, values = field_types(), defaults()
    return [
        _click_option(name, option, types[name], values[name]) for name, option in OPTIONS.items()
    ]


def _click_option(name: str, option: Option, kind: type, default: Any) -> click.Option:
    pair = isinstance(default, tuple)
    shown = str(default).lower() if kind is bool else str(default)
    if pair:
        shown = " ".join(f"{value:.4g}" for value in default)
    text = f"{option.help}  [default: {shown}]" if shown else option.help
    if kind is bool:
        return click.Option([f"{flag(name)}/--no-{flag(name)[2:]}", name], default=None, help=text)
    value_type: Any = click.Choice(option.choices) if option.choices else kind
    return click.Option(
        [flag(name), name], type=value_type, nargs=2 if pair else 1, default=None, help=text
    )


@click.command(
    cls=GroupedCommand,
    params=_settings_options(),
    short_help="Train a classifier on labelled photos.",
)
@click.argument("data", required=False, type=SomePath())
@output_option("Folder to write the run to.", required=False)
@click.option("--resume", type=SomePath(), metavar="RUN", help="Continue an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in that folder.")
@click.option(
    "--since", type=SomePath(), metavar="RUN", help="Also show what changed since this run."
)
@click.option(
    "--find-lr", is_flag=True, help="Only look for a learning rate: writes lr.csv and lr.png."
)
@click.option(
    "--help-all",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_every_option,
    help="Show every option.",
)
def command(
    data: Path | None,
    out: Path | None,
    resume: Path | None,
    overwrite: bool,
    since: Path | None,
    find_lr: bool,
    **options: Any,
) -> None:
    """Train a classifier on DATA, and write its weights and a report to a folder.

    DATA holds train/CLASS/ and val/CLASS/ with photos, or just CLASS/ folders, which are then
    split; or it is a list with columns path, label and, if it says what to validate on, split; or
    shards or a store (s3://…). DATA/unknown/ only tests whether unknown photos are noticed. On a
    GPU the whole network is trained, on a CPU its head, and with --max-time its last blocks, if the
    head is not good enough. --resume continues an interrupted run with epochs.

    \b
    Example:
      edgetl train photos -o runs/pets
      edgetl train photos -o runs/pets --strategy full --epochs 20
      edgetl train photos -o runs/pets --budget 15ms --profile pi4.json
      edgetl train photos.csv -o runs/pets --columns path=file,label=class
      edgetl train photos -o runs/pets-2 --since runs/pets
      edgetl train --resume runs/pets
    """
    given = given_options(options)
    if resume is not None:
        _refuse_beside_resume(out, overwrite, find_lr, given)
    elif data is None or out is None:
        raise click.UsageError("Name the photos and the run's folder: edgetl train DATA -o RUN")
    elif find_lr:
        if since is not None:
            raise click.UsageError("--since: no effect with --find-lr. Leave it out.")
        _find_lr(data, out, given)
        return
    folder = resume or out
    assert folder is not None
    cached = given.get("feature_cache") != "off"
    is_resumed = resume is not None
    explained = _explain_ctrl_c(folder, since, is_resumed=is_resumed, cached=cached)
    with display() as listener, explained:
        result = train(
            data, out, resume=resume, overwrite=overwrite, since=since, progress=listener, **given
        )
    # Only now: while a bar is shown, it would be in the same line.
    _print_result(result, since)


def _refuse_beside_resume(
    out: Path | None, overwrite: bool, find_lr: bool, given: dict[str, Any]
) -> None:
    own = (("-o", out), ("--overwrite", overwrite), ("--find-lr", find_lr))
    others = [flag(name, value) for name, value in given.items() if name not in RESUMED_WITH]
    others += [name for name, value in own if value]
    if others:
        raise click.UsageError(
            f"--resume continues with the run's own settings; leave out {', '.join(others)}."
        )


def _find_lr(data: Path, out: Path, given: dict[str, Any]) -> None:
    if {"budget", "max_size"} & given.keys():
        raise click.UsageError("--find-lr needs one --backbone; leave out --budget and --max-size.")
    with display() as listener:
        settings, folders = resolve_run(data, out, given, listener, keeps_run=True)
        from edgetl.training.engine.lr_finder import find_learning_rate

        found = find_learning_rate(settings, out, folders, listener=listener)
    if not _is_main():
        return
    said = f"Suggested: --lr {found.suggested:.1e}" if found.suggested else _NO_RATE
    said += _FROM_FITTED_HEAD if found.fitted_head else ""
    click.echo(f"{said}\nCurve: {found.plot}, as numbers: {found.table}")


def _is_main() -> bool:
    """Whether this is the one of torchrun's processes that prints."""
    alone = (os.environ.get("WORLD_SIZE") or "1") == "1"
    return alone or (os.environ.get("RANK") or "0") == "0"


@contextmanager
def display() -> Iterator[Listener]:
    """What shows a run on the terminal, in the one process that prints."""
    # matplotlib warns about its own cache, in the middle of a bar.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if not _is_main():
        yield Listener()
        return
    from edgetl.cli.terminal.train_display import Display

    with Display() as listener:
        yield listener


@contextmanager
def _explain_ctrl_c(
    folder: Path, since: Path | None, *, is_resumed: bool, cached: bool
) -> Iterator[None]:
    """Say how to continue after Ctrl-C before the first step, or after the last one.

    since       the run to compare with, if any
    is_resumed  the run in ``folder`` is this one, not an earlier one
    cached      features are kept for later runs
    """
    before = () if is_resumed else _state_in(folder)
    try:
        yield
    except KeyboardInterrupt:
        kept = "; what is in the feature cache is not computed again" if cached else ""
        said = f"The same command begins again{kept}."
        if is_resumable(folder) and _state_in(folder) != before:
            said = _how_to_resume(folder, since)
        raise Stopped(said) from None


def _how_to_resume(folder: Path, since: Path | None) -> str:
    command = f"edgetl train --resume {shell_word(folder)}"
    if since is not None:  # no part of a run's settings
        command += f" --since {shell_word(since)}"
    everywhere, here = (os.environ.get(name) or "1" for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if everywhere == "1":
        return f"Go on with: {command}"
    if here == everywhere:
        return f"Go on with: torchrun --nproc-per-node {here} -m {command}"
    return f"Go on with the same torchrun on all machines: … -m {command}"


def _state_in(folder: Path) -> tuple[int, ...]:
    """Tells one saved state from another: an earlier run's is there until a new one has begun."""
    try:
        status = (folder / LAST).stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns


class Stopped(click.ClickException):
    """Ended by Ctrl-C; the message says how to continue."""

    exit_code = INTERRUPTED

    def show(self, file: IO[Any] | None = None) -> None:
        """Called by ``main``, after the bars are gone."""
        if _is_main():
            click.echo(f"Interrupted. {self.message}", err=True)


def _print_result(result: TrainResult, since: Path | None) -> None:
    if not result.finished:
        raise Stopped(_how_to_resume(result.folder, since))
    metrics, folder = result.metrics, result.folder
    if not metrics:  # another process of torchrun prints
        return
    click.echo(f"Validation accuracy {accuracy_in_words(metrics)}, loss {metrics['loss']:.4f}")
    if metrics["epoch"] and not metrics["midway"]:  # notes speak of the other two
        click.echo(f"Kept: epoch {metrics['epoch']}; the loss is the one after calibration")
    _print_weakest_class(metrics)
    for line in noticed_unknown(metrics.get("unknown", {})):
        click.echo(f"Unknown photos: {line}")
    if metrics.get("refit"):
        click.echo("Then the head was fitted once more, to the validation photos as well.")
    if result.since is not None:
        print_comparison(result.since)
    click.echo(f"Checkpoint: {folder / BEST}\nReport: {folder / REPORT}")
    if (folder / LABEL_ISSUES_TABLE).exists():
        click.echo(f"Some labels look wrong: edgetl data review {shell_word(folder)}")
    bundle = shell_word(f"exported/{real_path(folder).name}")
    tried = metrics.get("candidates", ())
    precision = next((trial["precision"] for trial in tried if trial["is_chosen"]), "fp32")
    smaller = "" if precision == "fp32" else f" --precision {precision}"
    click.echo(f"Next: edgetl export {shell_word(folder)} -o {bundle}{smaller}")


def _print_weakest_class(metrics: Mapping[str, Any]) -> None:
    """Where the accuracy hides that one class is hardly recognised, as with uneven classes."""
    known = [found for found in metrics["classes"] if found["recall"] is not None]
    weakest = min(known, key=lambda found: float(found["recall"]))
    if weakest["recall"] < metrics["accuracy"] - _MUCH_LESS:
        photos = counted(weakest["photos"], "photo")
        click.echo(
            f"Weakest class: {printable(weakest['label'])}, "
            f"{weakest['recall']:.1%} of its {photos} recognised"
        )
