"""The short digests by which a bundle recognises the photos that its model was trained on.

Of each photo, the first 48 bits of the SHA-256 of its file: 8 characters of base64. Among a million
photos, one of 10,000 others is taken for one of them in 0.004 % of all cases.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

_BYTES = 6
_CHARACTERS = 8


def short_digest(digest: str) -> str:
    """The eight characters for a photo, from the SHA-256 of its file (hex)."""
    return base64.b64encode(bytes.fromhex(digest)[:_BYTES]).decode()


def pack(digests: Iterable[str]) -> str:
    """The photos with these SHA-256 (hex) as one string: sorted, each once."""
    return "".join(sorted(set(map(short_digest, digests))))


def unpack(text: str) -> frozenset[str]:
    """The short digests in ``text``, which ``pack`` wrote. Raises ValueError for anything else."""
    if len(text) % _CHARACTERS:
        raise ValueError(f"it has {len(text)} characters, which is no multiple of {_CHARACTERS}")
    return frozenset(
        text[start : start + _CHARACTERS] for start in range(0, len(text), _CHARACTERS)
    )
