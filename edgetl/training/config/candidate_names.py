"""The names of networks to compare: a backbone, or a backbone at one image size."""

from __future__ import annotations

from typing import NamedTuple

from edgetl.errors import TrainingError


class CandidateName(NamedTuple):
    """A network to compare.

    backbone    as ``--backbone`` takes it
    image_size  side of its input, pixels; 0: those that are usually compared
    """

    backbone: str
    image_size: int = 0

    def __str__(self) -> str:
        """As ``parse_candidate`` reads it."""
        return f"{self.backbone}@{self.image_size}" if self.image_size else self.backbone

    def covers(self, backbone: str, image_size: int) -> bool:
        """Whether it names this backbone at this size."""
        return self.backbone == backbone and self.image_size in (0, image_size)


def parse_candidate(text: str) -> CandidateName:
    """``NAME`` or ``NAME@SIZE`` → its parts. Raises TrainingError."""
    backbone, has_size, size = text.strip().partition("@")
    if not backbone or (has_size and not (size.isascii() and size.isdecimal() and int(size))):
        raise TrainingError(
            f"{text!r} names no candidate.", "Write NAME or NAME@SIZE: efficientnet_lite1@256"
        )
    return CandidateName(backbone, int(size or 0))


def parse_candidates(text: str) -> tuple[CandidateName, ...]:
    """Names with commas between them; none for "". Raises TrainingError."""
    return tuple(parse_candidate(name) for name in text.split(",")) if text else ()
