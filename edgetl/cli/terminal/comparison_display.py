"""What changed since an earlier run, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import click

from edgetl.system.message_text import counted, enumerated, printable
from edgetl.training.evaluation.run_comparison import PairedAccuracy, RunComparison

_CHANCE = 0.05  # a change that chance makes as often is called so


def print_comparison(found: RunComparison) -> None:
    """Print the accuracies before and now, and the classes that were added and removed."""
    click.echo(f"Since {found.run}:")
    for line in _lines(found):
        click.echo(f"  {printable(line)}")


def _lines(found: RunComparison) -> Iterator[str]:
    if found.validation.photos:
        yield f"{_accuracies(found.validation, 'photo')} that both validated on"
    if found.new.photos:
        yield _accuracies(found.new, "new photo")
    if found.added.photos:
        photos = counted(found.added.photos, "photo")
        names = enumerated(found.classes_added)
        yield f"{found.added.now:.1%} of {photos} of added classes: {names}"
    if found.classes_removed:
        yield f"removed classes: {enumerated(found.classes_removed)}"
    if found.left_out:
        photos = counted(found.left_out, "validation photo")
        yield f"not compared: {photos}, on which the earlier run was trained"


def _accuracies(group: PairedAccuracy, noun: str) -> str:
    """Such as "85.0% before, 90.0% now of 40 photos (1 right → wrong, 3 wrong → right)"."""
    flips = f"{group.lost:,} right → wrong, {group.gained:,} wrong → right"
    if group.lost + group.gained and group.chance > _CHANCE:
        flips += ", which can be chance"
    return f"{group.before:.1%} → {group.now:.1%} of {counted(group.photos, noun)} ({flips})"
