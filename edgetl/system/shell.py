"""Shell commands shown to the user."""

from __future__ import annotations

import shlex


def shell_word(value: object) -> str:
    """A path or another value as one printable word of a shell command, quoted where necessary.

    What can't be printed takes quotes that bash, zsh and newer POSIX shells know: ``$'a\\012b'``.
    """
    text = str(value)
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_quoted, text))}'"


def _quoted(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    is_invalid_byte = "\udc80" <= character <= "\udcff"  # of a file's name
    data = character.encode(errors="surrogateescape" if is_invalid_byte else "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in data)
