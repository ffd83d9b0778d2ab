"""How an export says what it is doing, since int8 on many photos takes minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Working = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much: 0 of 0 for a step that is not counted."""

T = TypeVar("T")


def silent(what: str, done: int, total: int) -> None:
    """Says nothing."""


def counted(things: Iterable[T], total: int, what: str, working: Working) -> Iterator[T]:
    """``total`` things one after the other, each reported when it is done with."""
    working(what, 0, total)
    for done, thing in enumerate(things, start=1):
        yield thing
        working(what, done, total)
