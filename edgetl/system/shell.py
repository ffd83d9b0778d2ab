"""Commands that are shown to be pasted."""

from __future__ import annotations

import shlex


def shell_word(value: object) -> str:
    """A path, or any other value, as one word of a POSIX shell's command line: in quotes where it holds a space, say."""
    return shlex.quote(str(value))
