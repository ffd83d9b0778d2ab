"""How ``edgetl check`` shows its result on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from edgetl.cli.printable import printable
from edgetl.parity.reports.table_cells import figures, minor_figures
from edgetl.parity.results import AgainstResult, CheckResult

_COLOURS = {"passed": "green", "failed": "bold red", "skipped": "dim", "shown": "cyan"}
_MOST_LISTED = 10
_WIDE = 100  # characters


def show(result: CheckResult | AgainstResult, console: Console) -> None:
    """Print the whole report."""
    if isinstance(result, CheckResult):
        _show_check(result, console)
    else:
        _show_against(result, console)


def _show_check(result: CheckResult, console: Console) -> None:
    """The table of runtimes, what is wrong, and the verdict."""
    if result.runtimes:
        console.print(_runtimes(result, console))
        _show_worst(result, console)
    for name, reason in result.failures:
        console.print(f"[bold red]{name}[/]: {_text(reason)}")
    causes = {
        run.cause: run.departure for run in result.runtimes if run.cause and run.status == "failed"
    }
    for cause, departure in causes.items():
        console.print(f"[bold]likely cause[/] at {departure}: {_text(cause)}")
    for run in result.runtimes:
        if run.status == "skipped":
            console.print(f"[dim]{run.name} skipped: {_text(run.reason)}[/]")
    _show_unreadable(result.unreadable, console)
    facts = f"{result.photos} photos, {result.precision}, tolerance {result.tolerance:g}, {result.seconds:.1f} s"
    if not result.photos:
        facts = "nothing compared"
    _show_verdict(result.passed, facts, console)


def _show_worst(result: CheckResult, console: Console) -> None:
    """The photo whose probabilities are furthest from the reference's anywhere."""
    judged = [run for run in result.runtimes if run.status != "shown" and run.decisions.worst]
    if judged:
        run = max(judged, key=lambda run: run.decisions.worst[0].distance)
        worst = run.decisions.worst[0]
        console.print(
            f"furthest: {_text(worst.photo)} in {run.name}, a probability off by {worst.distance:.2g}"
        )


def _show_against(result: AgainstResult, console: Console) -> None:
    """Agreement, accuracy where it is known, and the photos on which the two disagree."""
    if result.photos:
        others = len(result.disagreements)
        console.print(
            f"agreement {result.agreement:.2%}: {others} of {result.photos} photos get another label"
        )
    if result.largest is not None and result.kl_mean is not None:
        difference = f"largest difference of a probability {result.largest:.3g}, mean KL divergence {result.kl_mean:.3g}"
        console.print(difference)
    if result.accuracy:
        console.print(_accuracy(result))
    if result.disagreements:
        console.print(_disagreements(result))
    for name, reason in result.failures:
        console.print(f"[bold red]{name}[/]: {_text(reason)}")
    _show_unreadable(result.unreadable, console)
    if result.photos and result.largest is None:
        console.print("the two models have different labels")
    facts = (
        f"{result.photos} photos, {result.seconds:.1f} s" if result.photos else "nothing compared"
    )
    if result.limited or not result.passed:
        _show_verdict(result.passed, facts, console)
    else:
        console.print(f"COMPARED  {facts}; no limit was given: --max-accuracy-drop or --tolerance")


def _runtimes(result: CheckResult, console: Console) -> Table:
    """Where the window is narrow, the figures that decide nothing are left to the files."""
    wide = console.width >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("runtime", "verdict", *(("first off",) if wide else ())):
        table.add_column(column, no_wrap=True)
    for column in (
        "resized",
        "normalized",
        "logits",
        "prob.",
        "flips",
        *(("99.9 %", "KL", "s") if wide else ()),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for run in result.runtimes:
        verdict = f"[{_COLOURS[run.status]}]{run.status}[/]"
        minor = (*minor_figures(run), f"{run.seconds:.1f}" if run.stages else "") if wide else ()
        table.add_row(
            run.name, verdict, *((run.departure or "",) if wide else ()), *figures(run), *minor
        )
    return table


def _accuracy(result: AgainstResult) -> Table:
    assert result.accuracy is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class")
    for column in ("photos", "old", "new", "change"):
        table.add_column(column, justify="right")
    rows: list[tuple[str, int, float, float]] = [
        (c.label, c.photos, c.old, c.new) for c in result.accuracy.classes
    ]
    rows.append(("all", result.accuracy.photos, result.accuracy.old, result.accuracy.new))
    for label, photos, old, new in rows:
        table.add_row(
            _text(label), f"{photos}", f"{old:.2%}", f"{new:.2%}", f"{100 * (new - old):+.2f}"
        )
    return table


def _disagreements(result: AgainstResult) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("photo", "old", "new", "in folder"):
        table.add_column(column)
    for one in result.disagreements[:_MOST_LISTED]:
        old, new = f"{one.old} {one.old_confidence:.1%}", f"{one.new} {one.new_confidence:.1%}"
        table.add_row(*map(_text, (one.photo, old, new, one.truth or "")))
    if len(result.disagreements) > _MOST_LISTED:
        table.add_row(f"… and {len(result.disagreements) - _MOST_LISTED} more")
    return table


def _show_unreadable(unreadable: Mapping[str, str], console: Console) -> None:
    items = list(unreadable.items())
    for name, reason in items[:_MOST_LISTED]:
        console.print(f"[yellow]not compared[/] {_text(name)}: {_text(reason)}")
    if len(items) > _MOST_LISTED:
        console.print(f"[yellow]not compared[/] … and {len(items) - _MOST_LISTED} more")


def _show_verdict(passed: bool, facts: str, console: Console) -> None:
    verdict = "[bold green]PASSED[/]" if passed else "[bold red]FAILED[/]"
    console.print(f"{verdict}  {facts}")


def _text(text: str) -> str:
    """``text`` as rich shows it unchanged, on one line."""
    return escape_markup(printable(text))
