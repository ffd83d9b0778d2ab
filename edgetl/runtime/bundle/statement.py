"""How good a model's answers were on photos that fitted nothing: a statement that can be tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Figure = Literal["accuracy", "coverage", "answered", "precision", "known", "unknown"]

_MOST_PHOTOS = 1_000_000  # of which a test by edgetl evaluate takes a few megabytes
_WORDS: Mapping[Figure, str] = {
    "accuracy": "answers that are right",
    "coverage": "sets of {level:.4g}% with the right label",
    "answered": "answers that are sure",
    "precision": "sure answers that are right, {level:.4g}% wanted",
    "known": "photos that are not taken for unknown",
    "unknown": "unknown photos that are noticed",
}


@dataclass(frozen=True)
class StatedShare:
    """A share of photos.

    figure    accuracy   the answer is right
              coverage   the prediction set of ``level`` holds the right label
              answered   the answer is sure
              precision  the answer is right, of those that are sure; ``level`` was asked for
              known      the photo, of a class of the model, is not taken for unknown
              unknown    the photo, of no class of the model, is taken for unknown
    count     how many of the ``photos``
    photos    that it was measured on
    interval  of the share, Clopper and Pearson's, 95 %; up to 1 for a precision, which is promised
              from below
    level     0..1, where the figure has one
    label     of the answers that it is about; None: of all without a figure of their own
    """

    figure: Figure
    count: int
    photos: int
    interval: tuple[float, float]
    level: float | None = None
    label: str | None = None

    @property
    def share(self) -> float:
        """0..1"""
        return self.count / self.photos

    @property
    def name(self) -> str:
        """What it is the share of, in words."""
        words = _WORDS[self.figure].format(level=100 * (self.level or 0))
        return words if self.label is None else f"{self.label}: {words}"

    @property
    def text(self) -> str:
        """The share with its interval, in percent."""
        low, high = self.interval
        return f"{self.share:.1%} ({low:.1%} to {high:.1%})"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StatedShare:
        """Read a card's JSON values. Raises KeyError, TypeError or ValueError for others."""
        low, high = map(float, values["interval"])
        count, photos, level = int(values["count"]), int(values["photos"]), values["level"]
        if (
            values["figure"] not in get_args(Figure)
            or not 0 <= count <= photos <= _MOST_PHOTOS
            or not photos
            or not 0 <= low <= high <= 1
        ):
            raise ValueError(f"statement: {dict(values)}")
        return cls(
            values["figure"],
            count,
            photos,
            (low, high),
            None if level is None else float(level),
            None if values["label"] is None else str(values["label"]),
        )
