"""Kill what writes files at any of its steps, in this process: what was written stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

_STEPS = ("replace", "rename", "unlink", "rmdir", "fsync")


class Killed(BaseException):
    """Raised at a step, and at every later one: a dead process cleans nothing up."""


@contextmanager
def killed_at(step: int) -> Iterator[list[str]]:
    """Die before the ``step``-th change of a folder, from 1 → the changes that were begun."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch, suppress(Killed):

        def dying(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
            def act(*arguments: Any, **options: Any) -> Any:
                seen.append(f"{name} {arguments[0]}")
                if len(seen) >= step:
                    raise Killed
                return plain(*arguments, **options)

            return act

        for name in _STEPS:
            patch.setattr(os, name, dying(name, getattr(os, name)))
        yield seen


def content(folder: Path) -> dict[str, bytes]:
    """Every file in ``folder`` that is not hidden → its content."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}
