"""How well a model notices unknown photos, in words for ``edgetl train`` and ``edgetl info``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgetl.system.message_text import counted

_KINDS = {"unknown_folder": "in unknown/", "left_out_classes": "of left-out classes"}


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
