"""Names of photos and classes, and numbers of things, fit for one line of a terminal."""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import Any


def printable(text: str) -> str:
    """One line, whatever a label or file name holds: control characters and stray bytes are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_text(values: Any, *, indent: int | None = None) -> str:
    """JSON for standard output; escaped where what it writes is not UTF-8, which JSON is, or where a name is no Unicode."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    try:
        plain = text.encode() == text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        plain = False
    return text if plain else json.dumps(values, indent=indent)


def width(text: str) -> int:
    """Columns that printable ``text`` takes in a terminal: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def counted(count: float, noun: str) -> str:
    """1 photo, 1,000 photos."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
