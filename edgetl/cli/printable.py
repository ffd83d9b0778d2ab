"""Names of photos and classes, and numbers of things, fit for one line of a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """One line, whatever a label or file name holds: control characters and stray bytes are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def width(text: str) -> int:
    """Columns that printable ``text`` takes in a terminal: two for wide characters, none for combining ones."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def counted(count: float, noun: str) -> str:
    """1 photo, 1,000 photos."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
