"""``edgetl data``: check a folder of labelled photos before training, split or correct one."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.data_review import review
from edgetl.cli.options.list_options import list_options
from edgetl.cli.options.option_types import SomePath
from edgetl.cli.options.report_file import ReportFile
from edgetl.cli.process import require_stdout
from edgetl.cli.terminal.progress_bar import show_progress
from edgetl.data.layout import DEFAULT_VAL_FRACTION
from edgetl.system.message_text import counted, first_few, printable

if TYPE_CHECKING:
    from rich.table import Table

    from edgetl.data.audit import AuditResult, DataIssue
    from edgetl.data.split import SplitResult

_SHOWN_FINDINGS = 5  # of one kind; --json has them all
_SHOWN_PATHS = 4  # of one finding
_SHOWN_CLASSES = 40

_json_option = click.option(
    "--json", "json_file", type=ReportFile(), help="Also write everything to FILE as JSON."
)
_threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Photos decoded at a time. [default: one per core]",
)


@click.group(short_help="Look for faults in photos and labels, or split photos for training.")
def command() -> None:
    """Check a folder of labelled photos, split one into train and val, or correct its labels.

    \b
    Example:
      edgetl data check DATA
      edgetl data split PetImages DATA
      edgetl data review runs/pets
    """


command.add_command(review)


@command.command()
@click.argument("data", type=SomePath())
@list_options
@_json_option
@_threads_option
def check(
    data: Path, columns: str | None, root: Path | None, json_file: Path | None, threads: int | None
) -> None:
    """Look for what would harm training on DATA, a folder or a list; nothing is changed.

    It finds unreadable, truncated and empty files, wrong suffixes, exact and near duplicates within
    and across train, val and the classes (within one class, also mirrored or rotated ones), tiny,
    huge, blank and dark photos, and missing, empty and uneven classes. The exit code is 1 if there
    is an error: something that makes training fail, leaves photos out of it, or makes its metrics
    wrong. Near duplicates are only warnings, also across train and val: they may be different
    photos.

    \b
    Example:
      edgetl data check DATA
      edgetl data check DATA --json findings.json
      edgetl data check photos.csv --columns path=file,label=class
    """
    from edgetl.data.audit import audit_folder
    from edgetl.data.photo_source import PhotoSource

    if json_file is None:
        require_stdout()
    photos = PhotoSource.at(data, columns, root)
    with show_progress() as progress:
        result = audit_folder(photos, threads=threads, progress=progress)
    _print_audit(result)
    _write_json(json_file, result.to_dict())
    if result.errors:
        sys.exit(1)


@command.command()
@click.argument("source", metavar="SRC", type=SomePath())
@click.argument("destination", metavar="DST", type=SomePath())
@click.option(
    "--val-fraction",
    default=DEFAULT_VAL_FRACTION,
    show_default=True,
    help="Share of the photos to validate on.",
)
@click.option(
    "--test-fraction",
    type=float,
    help="Share of the photos for DST/test, which training leaves alone. [default: none]",
)
@click.option(
    "--copy",
    is_flag=True,
    help="Copy the files instead of making hard links (needed from one disk to another).",
)
@list_options
@_json_option
@_threads_option
def split(
    source: Path,
    destination: Path,
    columns: str | None,
    root: Path | None,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Split SRC, a folder of class folders, into DST/train and DST/val, and DST/test if asked for.

    SRC may also be what the cats-and-dogs archive unpacks to, or a list with columns path and
    label, whose photos go into class folders. The split depends on the photos' contents,
    so that few photos move when others are added. Each class keeps the shares; duplicates and near
    duplicates stay in one part. Files that can't be read are listed and left out, which is not a
    failure. Hard links take no space, and survive the removal of SRC; but a photo edited in place
    changes in both. DST must be new or empty, and appears complete or not at all.

    \b
    Example:
      edgetl data split PetImages DATA
      edgetl data split PetImages DATA --val-fraction 0.1 --copy
      edgetl data split PetImages DATA --test-fraction 0.1
    """
    from edgetl.data.photo_source import PhotoSource
    from edgetl.data.split import split_folder

    photos = PhotoSource.at(source, columns, root)
    with show_progress() as progress:
        result = split_folder(photos, destination, progress=progress, **options)
    _print_split(result)
    _write_json(json_file, result.to_dict())


def _write_json(file: Path | None, values: dict[str, Any]) -> None:
    from edgetl.system.atomic_write import write_report_file

    if file is not None:
        write_report_file(file, json.dumps(values, ensure_ascii=False, indent=1) + "\n")


def _print_audit(result: AuditResult) -> None:
    summary = f"{_total(result.counts):,} photos to use of {result.files:,} files"
    if result.unknown:
        summary += f", {result.unknown:,} in unknown/ that only judge"
    if result.median_size is not None:
        width, height = result.median_size
        summary += f", median size {width}×{height}, {result.rotated:.1%} rotated by EXIF"
    warnings = len(result.findings) - result.errors
    _print(_counts_table(result.counts), f"{summary}.", *_finding_tables(result.findings))
    _print(f"{counted(result.errors, 'error')}, {counted(warnings, 'warning')}.")


def _print_split(result: SplitResult) -> None:
    destination = printable(str(result.destination))
    notes = list(result.notes)
    if result.clashes:
        notes.append(f"Remove the photos with wrong labels and {destination}, and split again.")
    shares = ", ".join(f"{part} {share:.1%}" for part, share in result.shares.items())
    _print(
        _counts_table(result.counts),
        *_finding_tables((*result.left_out, *result.clashes)),
        f"{_total(result.counts):,} photos in {destination}: {shares}; "
        f"{counted(len(result.left_out), 'file')} left out, "
        f"{counted(result.groups, 'group')} of duplicates kept together.",
        *map(printable, notes),
    )


def _total(counts: Mapping[str, Mapping[str, int]]) -> int:
    return sum(sum(classes.values()) for classes in counts.values())


def _counts_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("class", box=None, pad_edge=False)
    for part in counts:
        table.add_column(part or "photos", justify="right")
    names = sorted({name for classes in counts.values() for name in classes})
    for name in names[:_SHOWN_CLASSES]:
        numbers = [f"{classes.get(name, 0):,}" for classes in counts.values()]
        table.add_row(Text(printable(name)), *numbers)
    if len(names) > _SHOWN_CLASSES:
        table.add_row(f"and {len(names) - _SHOWN_CLASSES} more classes")
    table.add_section()
    totals = [f"{sum(classes.values()):,}" for classes in counts.values()]
    table.add_row("all", *totals, style="bold")
    return table


def _finding_tables(findings: Iterable[DataIssue]) -> Iterator[Table]:
    """One table for each level, errors first, with a few findings of each kind."""
    from rich.table import Table
    from rich.text import Text

    findings = list(findings)
    for level, style in (("error", "red"), ("warning", "yellow")):
        kinds: dict[str, list[DataIssue]] = defaultdict(list)
        for finding in findings:
            if finding.level == level:
                kinds[finding.kind].append(finding)
        table = Table(box=None, pad_edge=False, header_style=f"bold {style}")
        table.add_column(f"{level}s", no_wrap=True)
        table.add_column("", justify="right")
        table.add_column("", overflow="fold")
        for kind, found in kinds.items():
            shown = first_few([_finding_text(finding) for finding in found], _SHOWN_FINDINGS)
            table.add_row(kind, f"{len(found):,}", Text("\n".join(shown)))
        if kinds:
            yield table


def _finding_text(finding: DataIssue) -> str:
    if len(finding.paths) == 1:
        return f"{printable(finding.paths[0])}: {printable(finding.message)}"
    paths = [printable(path) for path in first_few(finding.paths, _SHOWN_PATHS)]
    return "\n  ".join([printable(finding.message), *paths])


def _print(*blocks: Table | str) -> None:
    from edgetl.cli.terminal.rich_console import open_console

    console = open_console(markup=False)
    for block in blocks:
        console.print(block, soft_wrap=isinstance(block, str))
        console.print()
