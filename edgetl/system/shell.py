"""Shell commands shown to the user."""

from __future__ import annotations

import shlex


def shell_word(value: object) -> str:
    """A path or another value as one word of a POSIX shell command, quoted where necessary."""
    return shlex.quote(str(value))
