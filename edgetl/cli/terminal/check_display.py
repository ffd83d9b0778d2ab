"""How ``edgetl check`` shows its result on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgetl.parity.reports.table_cells import LEFT_OUT, evidence, figures, minor_figures, score
from edgetl.parity.results import Accuracy, AgainstResult, CheckResult, Disagreement, RuntimeResult
from edgetl.system.message_text import counted, printable

_COLOURS = {"passed": "green", "failed": "bold red", "skipped": "dim", "shown": "cyan"}
_MAX_LISTED = 10
# (stage, column, its cell): of models that have it
_SOME_COLUMNS = (("ood_score", "score", score), ("evidence", "maps", evidence))


def show(result: CheckResult | AgainstResult, console: Console) -> None:
    """Print the whole report."""
    if isinstance(result, CheckResult):
        _show_check(result, console)
    else:
        _show_against(result, console)


def _show_check(result: CheckResult, console: Console) -> None:
    if result.runtimes:
        console.print(_runtime_table(result, console))
    measured = [run for run in result.runtimes if run.status != "shown" and run.decisions.worst]
    if measured:
        run = max(measured, key=lambda run: run.decisions.worst[0].distance)
        worst = run.decisions.worst[0]
        distance = f"a probability off by {worst.distance:.2g}"
        console.print(f"furthest: {_text(worst.photo)} in {run.name}, {distance}")
    stages = [stage for run in result.runtimes if run.status == "passed" for stage in run.stages]
    most = max(stages, key=lambda stage: stage.beyond, default=None)
    if most and most.beyond:
        allowed = f"{most.allowed} of {result.photos} may be"
        console.print(f"beyond the limit of {most.stage}: {most.beyond} photos; {allowed}")
    _show_failures(result, console)
    causes = {
        run.cause: run.departure for run in result.runtimes if run.cause and run.status == "failed"
    }
    for cause, departure in causes.items():
        console.print(f"[bold]likely cause[/] at {departure}: {_text(cause)}")
    for run in result.runtimes:
        if run.status == "skipped":
            console.print(f"[dim]{run.name} skipped: {_text(run.reason)}[/]")
        elif run.left_out:
            console.print(f"[dim]{run.name}: {LEFT_OUT.format(run.left_out)}[/]")
    _show_unreadable(result.unreadable, console)
    facts = "nothing compared"
    if result.photos:
        facts = f"{counted(result.photos, 'photo')}, {result.precision}"
        facts += f", tolerance {result.tolerance:g}, {result.seconds:.1f} s"
    console.print(f"{_verdict(result.passed)}  {facts}")


def _show_against(result: AgainstResult, console: Console) -> None:
    if result.photos:
        differing = f"{len(result.disagreements)} of {result.photos} photos get another label"
        console.print(f"agreement {result.agreement:.2%}: {differing}")
    if result.largest is not None and result.kl_mean is not None:
        largest = f"largest difference of a probability {result.largest:.3g}"
        console.print(f"{largest}, mean KL divergence {result.kl_mean:.3g}")
    if result.accuracy:
        console.print(_accuracy_table(result.accuracy))
    if result.trained_on:
        photos = f"{len(result.trained_on):,} of these {result.photos:,} photos"
        console.print(f"A model was trained on {photos}: on them it looks better than it is.")
    if result.disagreements:
        console.print(_disagreement_table(result.disagreements))
    _show_failures(result, console)
    _show_unreadable(result.unreadable, console)
    if result.photos and result.largest is None:
        console.print("the two models have different labels")
    facts = "nothing compared"
    if result.photos:
        facts = f"{counted(result.photos, 'photo')}, {result.seconds:.1f} s"
    if result.limited or not result.passed:
        console.print(f"{_verdict(result.passed)}  {facts}")
    else:
        console.print(f"COMPARED  {facts}; no limit was given: --max-accuracy-drop or --tolerance")


def _runtime_table(result: CheckResult, console: Console) -> Table:
    """With the columns that fit; the report files hold all.

    First to be left out are the figures that decide nothing, then those that only some models have.
    """
    given = {stage.stage for run in result.runtimes for stage in run.stages}
    some = {column: cell for stage, column, cell in _SOME_COLUMNS if stage in given}
    unlimited = console.options.update(max_width=1000)
    for wide, shown in ((True, some), (False, some)):
        table = _table_of(result, wide, shown)
        if console.measure(table, options=unlimited).maximum <= console.width:
            return table
    return _table_of(result, False, {})


def _table_of(
    result: CheckResult, wide: bool, some: Mapping[str, Callable[[RuntimeResult], str]]
) -> Table:
    """``wide``: with figures that decide nothing; ``some``: further columns, name → cell."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("runtime", "verdict", *(("first off",) if wide else ())):
        table.add_column(column, no_wrap=True)
    numbers = ("resized", "normalized", "logits", "prob.", "flips")
    more = (*some, *(("99.9 %", "KL", "s") if wide else ()))
    for column in (*numbers, *more):
        table.add_column(column, justify="right", no_wrap=True)
    for run in result.runtimes:
        cells = [run.name, f"[{_COLOURS[run.status]}]{run.status}[/]"]
        cells += [run.departure or ""] if wide else []
        cells += [*figures(run), *(cell(run) for cell in some.values())]
        if wide:
            cells += [*minor_figures(run), f"{run.seconds:.1f}" if run.stages else ""]
        table.add_row(*cells)
    return table


def _accuracy_table(accuracy: Accuracy) -> Table:
    table = Table("class", box=None, pad_edge=False, header_style="bold")
    for column in ("photos", "old", "new", "change"):
        table.add_column(column, justify="right")
    rows = [(one.label, one.photos, one.old, one.new) for one in accuracy.classes]
    rows.append(("all", accuracy.photos, accuracy.old, accuracy.new))
    for label, photos, old, new in rows:
        change = f"{100 * (new - old):+.2f}"
        table.add_row(_text(label), f"{photos}", f"{old:.2%}", f"{new:.2%}", change)
    return table


def _disagreement_table(disagreements: tuple[Disagreement, ...]) -> Table:
    columns = ("photo", "old", "new", "label")
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for one in disagreements[:_MAX_LISTED]:
        old, new = f"{one.old} {one.old_confidence:.1%}", f"{one.new} {one.new_confidence:.1%}"
        table.add_row(*map(_text, (one.photo, old, new, one.truth or "")))
    if len(disagreements) > _MAX_LISTED:
        table.add_row(f"… and {len(disagreements) - _MAX_LISTED} more")
    return table


def _show_failures(result: CheckResult | AgainstResult, console: Console) -> None:
    for name, reason in result.failures:
        console.print(f"[bold red]{name}[/]: {_text(reason)}")


def _show_unreadable(unreadable: Mapping[str, str], console: Console) -> None:
    items = list(unreadable.items())
    for name, reason in items[:_MAX_LISTED]:
        console.print(f"[yellow]not compared[/] {_text(name)}: {_text(reason)}")
    if len(items) > _MAX_LISTED:
        console.print(f"[yellow]not compared[/] … and {len(items) - _MAX_LISTED} more")


def _verdict(passed: bool) -> str:
    return "[bold green]PASSED[/]" if passed else "[bold red]FAILED[/]"


def _text(text: str) -> str:
    """``text`` on one line, with rich's markup escaped."""
    return escape(printable(text))
