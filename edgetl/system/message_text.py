"""Parts of messages: counts, lists of which only the first few are shown, and names."""

from __future__ import annotations

from collections.abc import Sequence

_ENUMERATED = 5  # names in a sentence


def counted(count: float, noun: str) -> str:
    """1 photo, 1,000 photos."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def first_few(items: Sequence[str], most: int) -> list[str]:
    """The first ``most`` of ``items``, and as one more how many others there are, if any."""
    others = len(items) - most
    return [*items[:most], *([f"and {others:,} more"] if others > 0 else [])]


def enumerated(names: Sequence[str]) -> str:
    """The first few of ``names``, printable, and how many more, for use in a sentence."""
    shown = first_few([printable(name) for name in names], _ENUMERATED)
    return " ".join([", ".join(shown[:_ENUMERATED]), *shown[_ENUMERATED:]])


def printable(text: str) -> str:
    """Any label or file name in one line: control characters and invalid bytes become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
