"""Names of photos and classes, fit for one line of a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line, whatever a label or file name holds: control characters and stray bytes are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
