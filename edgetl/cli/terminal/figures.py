"""Figures of a model in words, the same for every command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgetl.system.message_text import counted

_KINDS = {"unknown_folder": "in unknown/", "left_out_classes": "of left-out classes"}


def accuracy_in_words(metrics: Mapping[str, Any]) -> str:
    """With its interval and the number of photos, from the figures of ``metrics_summary``."""
    low, high = metrics["accuracy_interval"]
    photos = counted(metrics["photos"], "photo")
    return f"{metrics['accuracy']:.2%} ({low:.1%} to {high:.1%}) on {photos}"


def noticed_unknown(figures: Mapping[str, Any]) -> Iterator[str]:
    """A line for each kind of unknown photos, the user's own first.

    figures  what metrics.json and a bundle hold of them, where anything may be missing or wrong
    """
    from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN

    for name, place in _KINDS.items():
        if not isinstance(found := figures.get(name), Mapping):
            continue
        try:
            photos = counted(found["photos"], "photo")
            yield (
                f"{1 - found['let_in']:.0%} of {photos} {place} noticed, where "
                f"{KEEP_KNOWN:.0%} of known ones are kept (AUROC {found['auroc']:.1%})"
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
