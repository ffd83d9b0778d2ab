"""Text for a terminal: warnings, padded columns, and JSON for standard output."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any

import click

from edgetl.system.message_text import printable


def printable_lines(text: str) -> str:
    """``printable`` for text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def padded(text: str, columns: int) -> str:
    """Printable ``text``, with spaces up to so many terminal columns."""
    return text + " " * (columns - width(text))


def print_warnings(warnings: Iterable[str]) -> None:
    """To standard error, each in one line. Names in them may come from an untrusted bundle."""
    for warning in warnings:
        click.echo(f"Warning: {printable(warning)}", err=True)


def json_text(values: Any, *, indent: int | None = None) -> str:
    """JSON for standard output.

    All but ASCII is escaped if stdout's encoding is not UTF-8, as JSON must be, or if a file name
    is not valid Unicode.
    """
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    try:
        is_utf8 = text.encode() == text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        is_utf8 = False
    return text if is_utf8 else json.dumps(values, indent=indent)


def width(text: str) -> int:
    """Terminal columns of printable ``text``: 2 for wide characters, 0 for combining ones."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
